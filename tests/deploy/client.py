"""Asks without a pause, on a connection that it keeps and on new ones, until its standard input ends. Prints a line when
it has begun, and at the end how many requests were served, and what failed.

    client.py HOST PORT [--patient]     --patient: new connections only, since a restart ends the others
"""

import http.client
import json
import sys
import threading

host, port, *options = sys.argv[1:]
keeps = [False] if "--patient" in options else [True, False]
input_ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), input_ended.set()), daemon=True).start()
kept = http.client.HTTPConnection(host, int(port), timeout=60)
served, failed = 0, []
print("begun", flush=True)
while not input_ended.is_set():
    for keep in keeps:
        connection = kept if keep else http.client.HTTPConnection(host, int(port), timeout=60)
        try:
            connection.request("GET", "/orders/1")
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                served += 1
            else:
                failed.append(response.status)
        except (OSError, http.client.HTTPException) as error:
            failed.append(repr(error))
            connection.close()
        if not keep:
            connection.close()
print(json.dumps({"served": served, "failed": failed[:20]}))
