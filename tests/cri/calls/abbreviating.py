"""A client of the container runtime that abbreviates what it has said before on its connection, names of calls among it, as
gRPC's C core does. It shares no code with the daemon.

Usage: abbreviating.py SOCKET

Reads lines `/SERVICE/METHOD HEX`, makes each call with these bytes as its message, one after the other on one connection,
and prints the name of each one's code.
"""

import sys

import grpc

TIMEOUT = 60


def main():
    with grpc.insecure_channel("unix:" + sys.argv[1]) as channel:
        for line in sys.stdin:
            method, _, message = line.strip().partition(" ")
            try:
                channel.unary_unary(method)(bytes.fromhex(message), timeout=TIMEOUT)
                print("OK", flush=True)
            except grpc.RpcError as error:
                print(error.code().name, flush=True)


main()
