// The live events, and since when they do or don't come.
//
// EventSource comes back by itself after a cut and names the last event it has, so the server goes on from there. What it
// does not come back from (an answer that is an error: the interface starts, too many connections) is begun anew
// here, with back-off; then whoever listens must look at everything again (`onFresh`).

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;

export class Events {
  constructor(stream, { onRecord, onCheckpoint, onAlarm, onFresh, onState }) {
    this.path = `/v1/events?stream=${encodeURIComponent(stream)}`;
    this.handlers = { record: onRecord, checkpoint: onCheckpoint, alarm: onAlarm };
    this.onFresh = onFresh;
    this.onState = onState;
    this.connected = false;
    this.since = Date.now() / 1000;
    this.wait = FIRST_WAIT_MS;
    this.begin();
  }

  // Give up a connection that looks open and brings nothing, and begin another.
  again() {
    this.source.close();
    this.change(false);
    this.begin();
  }

  begin() {
    const source = this.source = new EventSource(this.path);
    let opened = false;
    let begun = false;
    source.addEventListener("open", () => {
      this.wait = FIRST_WAIT_MS;
      this.change(true);
      if (!opened) this.onFresh();
      opened = true;
      begun = true;
    });
    source.addEventListener("error", () => {
      if (source !== this.source) return;
      this.change(false);
      if (!begun) this.onFresh(); // show what there is, live or not
      begun = true;
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(() => this.begin(), this.wait);
      this.wait = Math.min(LONGEST_WAIT_MS, 2 * this.wait);
    });
    for (const [kind, handler] of Object.entries(this.handlers)) {
      source.addEventListener(kind, (event) => handler(JSON.parse(event.data)));
    }
  }

  change(connected) {
    if (this.connected === connected) return;
    this.connected = connected;
    this.since = Date.now() / 1000;
    this.onState();
  }
}
