"""Read pictures as people and GIS write them: TIFF with GDAL, all other formats with Pillow."""
