"""A local S3 server: a real store of objects at an address, which several processes can reach.

Server and client take a second to import, so only the tests that use them do.
"""

import contextlib
import logging
import urllib.request


class S3Bucket:
    """A served bucket.

    Attributes:
        address: of the bucket, for fsspec.
        environment: variables that lead clients here, and let them in.
    """

    def __init__(self, endpoint: str):
        import s3fs

        self.address = "s3://bucket"
        self.environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "user",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        self.environment |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        self.files = s3fs.S3FileSystem(
            key="user", secret="secret", client_kwargs={"endpoint_url": endpoint}, use_listings_cache=False
        )
        self.files.mkdir("bucket")

    def content(self, folder: str) -> dict[str, bytes]:
        """Return the files of a folder of the bucket."""
        paths = self.files.ls(f"bucket/{folder}", detail=False, refresh=True)
        return {path.rpartition("/")[2]: self.files.cat_file(path) for path in paths}

    def names(self, folder: str) -> list[str]:
        """Return the names of the files of a folder of the bucket, which may not exist yet."""
        with contextlib.suppress(FileNotFoundError):
            return [path.rpartition("/")[2] for path in self.files.ls(f"bucket/{folder}", detail=False, refresh=True)]
        return []


@contextlib.contextmanager
def serving_s3():
    """Serve an empty bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    try:
        yield S3Bucket(endpoint)
    finally:
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
        server.stop()


def forget_connections() -> None:
    """Have this process connect again, with the variables of then."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
