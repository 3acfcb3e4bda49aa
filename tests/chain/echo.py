"""A peer that speaks no HTTP: it answers each line in capitals."""

import asyncio

from runner.peer import Peer

peer = Peer(end="!")


async def answer(reader, writer):
    word = (await reader.readline()).decode().strip()
    with peer.noted("line", word) as call:
        call["status"] = "shouted"
        writer.write(f"{word.upper()}{peer.state['end']}\n".encode())
        await writer.drain()
    writer.close()


async def serve(address):
    host, port = address.split(":")
    async with await asyncio.start_server(answer, host, int(port)) as server:
        await server.serve_forever()


peer.run(serve)
