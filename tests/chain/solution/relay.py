"""Hands lines on to the peer, and says who it is."""

import asyncio
import os


async def hand_on(reader, writer):
    host, port = os.environ["ECHO_ADDRESS"].split(":")
    from_echo, to_echo = await asyncio.open_connection(host, int(port))
    to_echo.write(await reader.readline())
    writer.write(f"{os.environ['REPLICA']} {(await from_echo.readline()).decode()}".encode())
    to_echo.close()
    writer.close()


async def main():
    async with await asyncio.start_server(hand_on, "127.0.0.1", int(os.environ["PORT"])) as server:
        await server.serve_forever()


asyncio.run(main())
