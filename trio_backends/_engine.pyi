# cffi's module has no types of its own: the compiled library and its pointers are used as they are.
from typing import Any

ffi: Any
lib: Any
