// Fetches a URL with each of node's two clients, over connections of their own, and prints the peers.
//
// usage: node client.js URL [ADDRESS...]
// Without addresses the name is resolved as node does it. With them they are the answer, in this order.

const http = require('node:http');

const [, , url, ...addresses] = process.argv;
const path = new URL(url).pathname;

function lookup(_name, options, answer) {
  const all = addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
  if (options.all) answer(null, all);
  else answer(null, all[0].address, all[0].family);
}

function check(status, body) {
  if (status !== 200 || body !== path.repeat(1000)) throw new Error(`status ${status}, ${body.length} characters`);
}

function byRequest() {
  return new Promise((resolve, reject) => {
    const options = { agent: false, timeout: 15000, ...(addresses.length ? { lookup } : {}) };
    const request = http.get(url, options, (answer) => {
      const peer = answer.socket.remoteAddress;
      let body = '';
      answer.setEncoding('utf8').on('data', (text) => (body += text));
      answer.on('end', () => resolve([answer.statusCode, body, peer]));
    });
    request.on('error', reject).on('timeout', () => request.destroy(new Error('no answer')));
  });
}

async function main() {
  const [status, body, peer] = await byRequest();
  check(status, body);
  console.log(peer);
  if (addresses.length) return;
  const answer = await fetch(url, { signal: AbortSignal.timeout(15000) });
  check(answer.status, await answer.text());
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
