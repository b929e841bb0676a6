"""Fill the templates of HTML pages that fetch nothing: pictures are data URIs."""

import base64
import io
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image


def render_template(package: str, name: str, content: dict[str, Any]) -> str:
    """Fill the template `name` of a package with `content`, whose texts are escaped."""
    options: Any = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    return Environment(loader=PackageLoader(package), **options).get_template(name).render(content)


def make_image_uri(kind: str, encoded: bytes) -> str:
    """Return an image file as a data URI; `kind`: the second word of its media type."""
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"


def make_jpeg_uri(image: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return make_image_uri("jpeg", buffer.getvalue())
