"""A local FTP server: a store at an address, which several processes can reach."""

import contextlib
import threading
from pathlib import Path

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import ThreadedFTPServer


class FtpFolder:
    """A served folder: its `address` for fsspec, and the names of the files that were `uploaded`."""

    def __init__(self, folder: Path):
        folder.mkdir()
        authorizer = DummyAuthorizer()
        authorizer.add_user("user", "secret", str(folder), perm="elradfmw")
        self.uploaded: list[str] = []
        uploaded = self.uploaded

        class Handler(FTPHandler):
            def on_file_received(self, file):
                uploaded.append(file)

        Handler.authorizer = authorizer
        self.server = ThreadedFTPServer(("127.0.0.1", 0), Handler)
        self.address = f"ftp://user:secret@127.0.0.1:{self.server.address[1]}"


@contextlib.contextmanager
def serving_ftp(folder: Path):
    """Serve a new folder."""
    ftp = FtpFolder(folder)
    thread = threading.Thread(target=ftp.server.serve_forever, kwargs={"handle_exit": False})
    thread.start()
    try:
        yield ftp
    finally:
        ftp.server.close_all()
        thread.join()
