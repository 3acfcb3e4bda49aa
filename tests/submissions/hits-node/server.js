// Counts hits. One thread runs all handlers, so the count needs no lock.
const http = require("node:http");

let hits = 0;

const server = http.createServer((request, answer) => {
  const body = request.method === "POST" ? { number: ++hits } : { hits };
  answer.setHeader("Content-Type", "application/json");
  answer.end(JSON.stringify(body));
});

server.listen(Number(process.env.PORT), "127.0.0.1");
