"""Reads a run's samples from the live blocks of a tenant with DuckDB, by what docs/block-format.md says and nothing else.

    read_blocks.py DOCUMENT STORE TENANT METRIC RUN

STORE: a folder, or http://HOST:PORT/BUCKET/PREFIX of an S3 server, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment.
One line of JSON per series and block: {"writer": …, "series": …, "samples": [[timestamp, value], …]}; the last one is
{"manifest": …, "blocks": …}.
"""

import datetime
import hashlib
import hmac
import json
import os
import re
import sys
import tempfile
import urllib.parse
import urllib.request
import xml.etree.ElementTree

import duckdb


class Folder:
    def __init__(self, path):
        self.path = path

    def names(self, prefix):
        folder = os.path.join(self.path, prefix)
        return os.listdir(folder) if os.path.isdir(folder) else []

    def read(self, name):
        with open(os.path.join(self.path, name), "rb") as f:
            return f.read()


class S3:
    def __init__(self, url):
        scheme, host, path, *_ = urllib.parse.urlsplit(url)
        bucket, _, prefix = path.strip("/").partition("/")
        self.origin, self.host = f"{scheme}://{host}", host
        self.bucket, self.prefix = f"/{bucket}", f"{prefix}/" if prefix else ""

    def get(self, path, query):
        """A request with the signature that S3 asks for (AWS Signature Version 4), its body left out of it."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        path = urllib.parse.quote(path)
        query = urllib.parse.urlencode(sorted(query.items()), quote_via=urllib.parse.quote, safe="")
        headers = {"host": self.host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": now}
        signed = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = f"GET\n{path}\n{query}\n{lines}\n{signed}\nUNSIGNED-PAYLOAD"
        scope = [now[:8], os.environ.get("AWS_REGION", "us-east-1"), "s3", "aws4_request"]
        text = "\n".join(["AWS4-HMAC-SHA256", now, "/".join(scope), hashlib.sha256(request.encode()).hexdigest()])
        key = b"AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"].encode()
        for part in [*scope, text]:
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        credential = "/".join([os.environ["AWS_ACCESS_KEY_ID"], *scope])
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={key.hex()}"
        )
        url = f"{self.origin}{path}" + (f"?{query}" if query else "")
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return answer.read()

    def names(self, prefix):
        names, token, whole = [], None, self.prefix + prefix
        while True:
            query = {"list-type": "2", "prefix": whole}
            if token:
                query["continuation-token"] = token
            root = xml.etree.ElementTree.fromstring(self.get(self.bucket, query))
            names += [key.text[len(whole):] for key in root.findall("{*}Contents/{*}Key")]
            token = root.findtext("{*}NextContinuationToken")
            if not token:
                return names

    def read(self, name):
        return self.get(f"{self.bucket}/{self.prefix}{name}", {})


def main():
    document, store, tenant, metric, run = sys.argv[1:6]
    with open(document, encoding="utf-8") as f:
        sql = re.search(r"<!-- block-sql:begin -->\s*```sql\n(.*?)```", f.read(), re.DOTALL).group(1)
    store = S3(store) if store.startswith("http") else Folder(store)
    root = f"tenants/{tenant}/metrics"
    versions = sorted(n for n in store.names(f"{root}/manifest/") if n.endswith(".json"))
    blocks = []
    if versions:
        manifest = json.loads(store.read(f"{root}/manifest/{versions[-1]}"))["manifest"]
        assert not manifest.get("tombstones"), "nothing was deleted"
        blocks = manifest["blocks"]
    for block in blocks:
        with tempfile.TemporaryDirectory() as folder:
            for name in block["objects"]:
                if name.endswith(".parquet"):
                    with open(os.path.join(folder, name), "wb") as f:
                        f.write(store.read(f"{root}/blocks/{block['id']}/{name}"))
            os.chdir(folder)
            rows = duckdb.execute(
                f"""SELECT labels['writer'] AS writer, labels['series'] AS series, list(ts), list(value) FROM ({sql})
                    WHERE labels['__name__'] = ? AND labels['run'] = ? GROUP BY ALL""",
                [metric, run],
            ).fetchall()
            os.chdir("/")
        for writer, series, times, values in rows:
            samples = list(zip(times, values))
            print(json.dumps({"writer": int(writer), "series": int(series), "samples": samples}))
    print(json.dumps({"manifest": versions[-1] if versions else "", "blocks": len(blocks)}))


main()
