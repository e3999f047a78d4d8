"""Files as somebody published them: found in the data folder or downloaded, and read only if their checksums are right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


class DataUnavailableError(Exception):
    """A data set's files are neither in the data folder nor to be had; the message says where to put them."""


@dataclass(frozen=True)
class Published:
    """Where a data set's files lie and where they come from."""

    folder: str
    """Their folder below the data folder, named as torchvision names it."""
    files: Mapping[str, str]
    """MD5 of each file, in the order in which they are read; empty where none is published."""
    url: str
    """Where they are published: a folder that has each under its name, ending in "/", or an archive of their folder."""
    archive_md5: str = ""
    """The archive's MD5, if `url` is one; empty where none is published."""

    def missing(self, data_folder: Path) -> list[str]:
        """The files that are not in the data folder."""
        return [file for file in self.files if not (data_folder / self.folder / file).exists()]

    def where(self, data_folder: Path) -> str:
        """Which files to put where, for a person without a network."""
        folder = data_folder / self.folder
        missing = f"{', '.join(self.missing(data_folder))} into {folder}"
        return f"{missing}, or {self._archive} into {folder.parent}" if self._archived else missing

    def contents(self, name: str, data_folder: Path) -> Iterator[bytes]:
        """Each file's bytes; what is missing is downloaded before the first.

        Raises:
            DataUnavailableError: when a file is missing and cannot be downloaded, or is not the published one.
        """
        folder = data_folder / self.folder
        missing = self.missing(data_folder)
        if missing:
            self._download(name, data_folder, missing)
        for file, md5 in self.files.items():
            content = (folder / file).read_bytes()
            if md5 and hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
                msg = f"{name}: {folder / file} is not the published file (its MD5 should be {md5}); remove it or put the right one there"
                raise DataUnavailableError(msg)
            yield content

    @property
    def _archived(self) -> bool:
        return not self.url.endswith("/")

    @property
    def _archive(self) -> str:
        return self.url.rpartition("/")[2]

    def _download(self, name: str, data_folder: Path, files: Sequence[str]) -> None:
        import requests  # noqa: PLC0415 - only a download needs it

        folder = data_folder / self.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._archived:
                self._unpack(folder, files)
            else:
                for file in files:
                    _retrieve(self.url + file, folder, self.files[file])
        except (OSError, ValueError, requests.RequestException) as error:
            msg = f"{name}: {self.url} could not be downloaded ({type(error).__name__}); put {self.where(data_folder)}"
            raise DataUnavailableError(msg) from error

    def _unpack(self, folder: Path, files: Sequence[str]) -> None:
        """Each file appears whole or not at all, for other runs may look for it meanwhile."""
        members = [f"{folder.name}/{file}" for file in files]
        with TemporaryDirectory(dir=folder.resolve()) as partial:
            _retrieve(self.url, folder.parent, self.archive_md5, members, partial)
            for file in files:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (Path(partial) / folder.name / file).replace(folder / file)


def _retrieve(url: str, folder: Path, md5: str, members: Sequence[str] = (), unpacked: str = "") -> None:
    """Downloads a file unless the folder has it, and unpacks those members of it, if any are named."""
    import pooch  # noqa: PLC0415 - only a download needs it

    kind = pooch.Unzip if url.endswith(".zip") else pooch.Untar
    unpack = kind(members=list(members), extract_dir=unpacked) if members else None
    known = f"md5:{md5}" if md5 else None
    pooch.retrieve(url, known_hash=known, fname=url.rpartition("/")[2], path=folder, processor=unpack)
