// When to draw: at most twice a second, however fast fixations come, and not at all while nobody can see it.

const EVERY_MS = 700; // what is new is seen within a second of its record, and drawing costs little

export class Painter {
  constructor(canvas, draw, everyMs = EVERY_MS) {
    this.draw = draw;
    this.everyMs = everyMs;
    this.last = 0;
    this.waiting = null;
    this.owed = false;
    this.hasRoom = false;
    new ResizeObserver((entries) => {
      this.hasRoom = entries[0].contentRect.width > 0;
      this.now();
    }).observe(canvas);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.owed) this.now();
    });
  }

  // Something new is to be shown.
  mark() {
    if (document.hidden) {
      this.owed = true;
      return;
    }
    if (this.waiting !== null) return;
    const wait = Math.max(0, this.last + this.everyMs - performance.now());
    this.waiting = setTimeout(() => this.now(), wait);
  }

  // Someone is moving it: with the next frame.
  now() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => requestAnimationFrame(() => {
      this.waiting = null;
      this.last = performance.now();
      this.owed = false;
      if (this.hasRoom) this.draw();
    }), 0);
  }
}
