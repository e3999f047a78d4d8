"""Files as somebody published them: found in the data folder or downloaded, and read only if their checksums are right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile

OnBytes = Callable[[str, int, int], None]
"""Told a file's name, how many of its bytes are here, and how many it has, 0 where that is not known. What it raises ends
the download; the next one goes on from there."""


def unheard(_file: str, _here: int, _total: int) -> None:
    """Nobody is told of bytes."""


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

    def contents(self, name: str, data_folder: Path, on_bytes: OnBytes = unheard) -> Iterator[bytes]:
        """Each file's bytes; what is missing is downloaded before the first.

        Raises:
            DataUnavailableError: when a file is missing and cannot be downloaded, or is not the published one.
        """
        folder = data_folder / self.folder
        if self.missing(data_folder):
            self._download(name, data_folder, on_bytes)
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

    def _download(self, name: str, data_folder: Path, on_bytes: OnBytes) -> None:
        from symcore.data import download  # noqa: PLC0415 - only a download needs what it imports

        folder = data_folder / self.folder
        try:
            with download.alone(folder, lambda: on_bytes(name, 0, 0)):
                missing = self.missing(data_folder)  # another process may have brought them meanwhile
                if self._archived and missing:
                    self._unpack(
                        download.fetch(self.url, folder.parent, self.archive_md5, on_bytes), folder, missing
                    )
                elif missing:
                    for file in missing:
                        download.fetch(self.url + file, folder, self.files[file], on_bytes)
        except (OSError, download.DownloadError) as error:
            msg = f"{name}: {self.url} could not be downloaded ({error}); put {self.where(data_folder)}"
            raise DataUnavailableError(msg) from error

    def _unpack(self, archive: Path, folder: Path, files: Sequence[str]) -> None:
        """Each file appears whole or not at all, for other runs may look for it meanwhile."""
        import pooch  # noqa: PLC0415 - only a download needs it

        kind = pooch.Unzip if archive.suffix == ".zip" else pooch.Untar
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.resolve()) as partial:
            members = [f"{folder.name}/{file}" for file in files]
            try:
                kind(members=members, extract_dir=partial)(str(archive), "download", None)
            except BadZipFile as error:
                msg = f"{archive} is harmed; remove it"
                raise OSError(msg) from error
            for file in files:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (Path(partial) / folder.name / file).replace(folder / file)
