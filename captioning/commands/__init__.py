"""What people run beside the stages: caption pictures, publish an adapter."""
