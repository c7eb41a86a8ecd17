"""Remote slides in a scratch folder: fetched ahead by a thread, within a budget, deleted after."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType

from pathencoder.errors import PathEncoderError, SlideError
from pathencoder.locks import Lock
from pathencoder.remote.download import Stopped, download
from pathencoder.remote.objects import join
from pathencoder.remote.slides import RemoteSlide

log = logging.getLogger(__name__)

SCRATCH_GB = 50.0
_PREFIX = "pathencoder-scratch-"
_SPARE = 100 << 20  # bytes of the disk that stay free


@dataclass(frozen=True)
class Scratch:
    """Where copies of remote slides lie, and how much they may take.

    Attributes:
        folder: Above the scratch folder of a run; None: the system's temporary folder.
        gb: The most that may lie there, in GB (1e9 bytes).
    """

    folder: Path | None = None
    gb: float = SCRATCH_GB


@dataclass(frozen=True)
class Staged:
    """A slide in the scratch folder.

    Attributes:
        path: The file or folder to open.
        slide: The slide as it was downloaded: it may have changed since it was listed.
        notes: Sentences for the summary.
    """

    path: Path
    slide: RemoteSlide
    notes: tuple[str, ...] = ()


class Staging:
    """The scratch folder of a run: a thread fetches the slides in their order.

    A slide waits until those before it were released and it fits the budget; so at most `budget`
    bytes lie in the folder. A context manager: at its end the folder is deleted. Folders of runs
    that were killed are deleted by the next run.

    Args:
        slides: In the order in which they will be asked for.
        scratch: Where, and how much.
        needed: Whether a slide must be fetched; called by the thread, just before.
    """

    def __init__(
        self,
        slides: Sequence[RemoteSlide],
        *,
        scratch: Scratch = Scratch(),
        needed: Callable[[RemoteSlide], bool] = lambda slide: True,
    ) -> None:
        self._slides, self._needed = list(slides), needed
        self._numbers = {slide.url: number for number, slide in enumerate(slides)}
        self._above = scratch.folder or Path(tempfile.gettempdir())
        self._budget = round(scratch.gb * 1e9)
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._ready: dict[str, Staged | BaseException] = {}
        self._held: dict[str, int] = {}  # bytes in the folder, or reserved, by slide
        self._released: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="staging", daemon=True)

    def __enter__(self) -> Staging:
        try:
            self._above.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(self._above)
            self._root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._above))
        except OSError as error:
            raise SlideError(
                f"{self._above}: no scratch folder can be made there ({error.strerror}): choose"
                " another --scratch"
            ) from error
        self._lock = Lock(self._root / "lock", "a new folder")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._thread.join()
        self._lock.release()
        shutil.rmtree(self._root, ignore_errors=True)

    def stop(self) -> None:
        """End the downloads; waiting for one then raises Stopped."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()

    @contextlib.contextmanager
    def staged(self, slide: RemoteSlide) -> Iterator[Staged]:
        """Wait for a slide; it is deleted when the block ends.

        Raises:
            SlideError: It could not be downloaded.
            Stopped: `stop` was called while it was waited for.
        """
        try:
            with self._changed:
                while slide.url not in self._ready and slide.url not in self._released:
                    if self._stop.is_set():
                        raise Stopped
                    self._changed.wait(1.0)  # a limit, so that Ctrl-C is noticed
                found = self._ready.get(slide.url)
                if found is None:  # the thread took it for one that is not needed
                    self._held[slide.url] = slide.size
            if isinstance(found, BaseException):
                raise found
            yield found or self._download(slide)
        finally:
            self.release(slide)

    def is_ready(self, slide: RemoteSlide) -> bool:
        """Whether a slide can be had without waiting."""
        return slide.url in self._ready

    def release(self, slide: RemoteSlide) -> None:
        """Delete a slide that is not needed any more, or not at all; safe to repeat."""
        with self._changed:
            self._released.add(slide.url)
            self._ready.pop(slide.url, None)
            held = self._held.pop(slide.url, None)
            if held is not None:
                shutil.rmtree(self._place(slide), ignore_errors=True)
            self._changed.notify_all()

    def _place(self, slide: RemoteSlide) -> Path:
        return self._root / f"{self._numbers[slide.url]:06d}"

    def _run(self) -> None:
        for slide in self._slides:
            try:
                result: Staged | BaseException | None = self._fetch(slide)
            except Stopped:
                return
            except Exception as error:
                result = error
            with self._changed:
                if result is not None and slide.url not in self._released:
                    self._ready[slide.url] = result
                if result is None or slide.url in self._released:
                    self._released.add(slide.url)
                    self._held.pop(slide.url, None)
                    shutil.rmtree(self._place(slide), ignore_errors=True)
                self._changed.notify_all()

    def _fetch(self, slide: RemoteSlide) -> Staged | None:
        if slide.url in self._released or not self._needed(slide):
            return None
        if slide.size > self._budget:
            raise SlideError(
                f"{slide.url}: it has {slide.size / 1e9:.2f} GB, and the scratch folder may hold"
                f" {self._budget / 1e9:g}: give more with --scratch-gb"
            )
        with self._changed:
            while sum(self._held.values()) + slide.size > self._budget:
                if self._stop.is_set():
                    raise Stopped
                self._changed.wait(1.0)
            self._held[slide.url] = slide.size
        return self._download(slide)

    def _download(self, slide: RemoteSlide) -> Staged:
        place, files = self._place(slide), []
        free = shutil.disk_usage(self._root).free
        if slide.size + _SPARE > free:
            raise SlideError(
                f"{slide.url}: it has {slide.size / 1e9:.2f} GB, and the disk of the scratch folder"
                f" {self._root} has {free / 1e9:.2f} free: choose another --scratch"
            )
        try:
            for item in slide.files:
                if not _is_plain(item.name):
                    raise SlideError(f"{slide.folder}/{item.name}: no name of a file")
                file = place / item.name
                file.parent.mkdir(parents=True, exist_ok=True)
                url = join(slide.folder, item.name)
                files.append(download(url, item, file, stop=self._stop))
        except PathEncoderError:
            raise
        except OSError as error:
            raise SlideError(
                f"{slide.url}: the scratch folder {self._root} cannot hold it"
                f" ({error.strerror or error}): choose another --scratch"
            ) from error
        now = replace(slide, files=tuple(files))
        notes = () if now == slide else ("it changed during the download, and was fetched again",)
        main = place / slide.files[0].name
        return Staged(main.parent if slide.whole_folder else main, now, notes)


def _remove_abandoned(above: Path) -> None:
    """Delete the scratch folders of runs that were killed: no process holds their locks."""
    for folder in above.glob(f"{_PREFIX}*"):
        if not (folder / "lock").exists():  # it is being made
            continue
        try:
            lock = Lock(folder / "lock", "in use")
        except PathEncoderError:  # Busy, or of another user
            continue
        if lock.held:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()


def _is_plain(name: str) -> bool:
    """Whether an object's name stays below the folder that it is written to."""
    return not PurePosixPath(name).is_absolute() and not {"..", ""} & set(name.split("/"))
