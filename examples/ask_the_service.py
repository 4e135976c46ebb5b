"""Ask a running service (`make serve`) for a picture and its score, with nothing but Python's own library.

python examples/ask_the_service.py http://127.0.0.1:8000 shapes-sd w8a8-minmax data/picture.png
"""

import json
import sys
from pathlib import Path
from urllib.request import Request, urlopen

address, model, variant, file = sys.argv[1:]
asked = {"model": model, "variant": variant, "prompt": "a red cube", "seed": 7, "score": True}
headers = {"Content-Type": "application/json", "Prefer": "wait=60"}
with urlopen(Request(f"{address}/v1/generations", json.dumps(asked).encode(), headers)) as answer:
    result = json.load(answer)["result"]
with urlopen(address + result["images"][0]["url"]) as picture:
    Path(file).write_bytes(picture.read())
print(f"{file}: psnr {result['score']['metrics']['psnr'][0]:.1f} dB")
