// A client of the wire in Node, from docs/wire.md alone:   npm install && node client.mjs ADDRESS STREAM COUNT
//
// Streams COUNT fixations from the stream's next_seq on, keeps each until it is acked, says hello again on a fresh
// socket after 2 s of silence, waits until each is learned, and prints one line of JSON.
import { Dealer } from "zeromq";

const [address, stream, count] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const AHEAD = 64, SILENCE_MS = 2000;
const bytes = (value) => Buffer.from(JSON.stringify(value), "utf8");

/** Frame 3: 50 x 50 pixels, row by row, red, green, blue: byte 3 * (50 * row + column) + channel. */
function patch(seq) {
  const raw = Buffer.alloc(50 * 50 * 3);
  for (let row = 0; row < 50; row++)
    for (let column = 0; column < 50; column++)
      for (let channel = 0; channel < 3; channel++)
        raw[3 * (50 * row + column) + channel] = (seq * 41 + row * (channel + 1) + 3 * column) % 256;
  return raw;
}

function fixation(seq) {
  return {
    stream, seq, onset: seq * 0.25, duration: 0.2, gaze: { x: (seq % 10) / 10, y: (seq % 7) / 7 },
    patch: { encoding: "raw", height: 50, width: 50, channels: 3, color: "rgb", degrees: 5.0 },
  };
}

let socket, epoch, waiting = null;

const send = (kind, body, ...more) => socket.send(["rjepa1", kind, bytes(body), ...more]);

/** The next message as [kind, JSON], or null after `limit` ms. One receive is under way at a time. */
async function receive(limit) {
  waiting ??= socket.receive();
  let timer;
  const late = new Promise((done) => { timer = setTimeout(done, limit, null); });
  const frames = await Promise.race([waiting, late]);
  clearTimeout(timer);
  if (frames === null) return null;
  waiting = null;
  return [frames[1].toString("ascii"), JSON.parse(frames[2].toString("utf8"))];
}

/** Claim the stream, or come back to it, on a fresh socket; the first seq that is not yet durable. */
async function hello() {
  for (;;) {
    waiting?.catch(() => {}); // the old socket's, which closing ends
    waiting = null;
    socket?.close();
    socket = new Dealer({ linger: 0 }); // no identity
    socket.connect(address);
    await send("hello", { stream, notify: "learned", ...(epoch === undefined ? {} : { epoch }) });
    const answer = await receive(5000);
    if (answer === null) continue;
    if (answer[0] !== "welcome") throw new Error(`${answer[0]}: ${JSON.stringify(answer[1])}`);
    epoch = answer[1].epoch;
    return answer[1].next_seq;
  }
}

const first = await hello();
let sent = first, acked = first - 1, done = first - 1, heard = Date.now();
const errors = new Map();
while (done < first + count - 1) {
  while (sent < first + count && sent <= acked + AHEAD) {
    await send("fixation", fixation(sent), patch(sent));
    sent += 1;
  }
  const answer = await receive(100);
  if (answer === null) {
    if (Date.now() - heard > SILENCE_MS && sent > acked + 1) [sent, heard] = [await hello(), Date.now()];
    continue;
  }
  heard = Date.now();
  const [kind, body] = answer;
  if (kind === "ack") [acked, done] = [Math.max(acked, body.seq), Math.max(done, body.learned)];
  else if (kind === "learned") errors.set(body.seq, body.prediction_error);
  else if (kind === "resend") sent = body.from_seq;
  else throw new Error(`${kind}: ${JSON.stringify(body)}`);
}
const last = errors.get(done) ?? null; // learned messages are best effort, the ack's count is not
console.log(JSON.stringify({ next_seq_at_hello: first, acked, learned: done - first + 1, last }));
process.exit(0);
