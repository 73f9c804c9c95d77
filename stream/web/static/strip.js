// The last ten seconds: loudness along the top, a lane for each head below, the newest at the right.

const SPAN_S = 10, RATE = 64, HELD_S = 0.5;

export class Strip {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.heads = [];
    this.loud = []; // [seconds, root of the peak]
    this.levels = []; // [seconds, strength of each head]
    this.drawnAt = 0;
  }

  setHeads(heads) {
    this.heads = heads;
    this.levels = [];
  }

  hear(buffer) {
    const view = new DataView(buffer);
    const count = view.getUint32(4, true), begin = view.getFloat64(8, true);
    for (let i = 0; i < count; i++) {
      this.loud.push([begin + i / RATE, view.getUint8(16 + i) / 255]);
    }
  }

  level(captureS, levels) {
    if (this.levels.length && captureS < this.levels.at(-1)[0]) this.levels = [];
    this.levels.push([captureS, levels]);
    const old = captureS - SPAN_S - 1;
    const firstLoud = this.loud.findIndex(([at]) => at > old);
    if (firstLoud > 64) this.loud.splice(0, firstLoud);
    const firstLevel = this.levels.findIndex(([at]) => at > old);
    if (firstLevel > 64) this.levels.splice(0, firstLevel);
    if (this.loud.length > 4096) this.loud.splice(0, this.loud.length - 2048);
    const now = performance.now();
    if (now - this.drawnAt > 60) {
      this.drawnAt = now;
      this.draw(captureS);
    }
  }

  draw(endS) {
    const { canvas, context } = this;
    const dense = Math.min(2, devicePixelRatio);
    const width = Math.round(canvas.clientWidth * dense);
    const height = Math.round(canvas.clientHeight * dense);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const style = getComputedStyle(document.documentElement);
    const [text, panel, line] = ["--text", "--panel", "--line"].map((n) => style.getPropertyValue(n));
    context.fillStyle = panel;
    context.fillRect(0, 0, width, height);
    const names = ["audio", ...this.heads.map(({ name }) => name)];
    const lane = height / names.length;
    const size = Math.min(13 * dense, lane * 0.6);
    context.font = `${size}px system-ui, sans-serif`;
    const left = Math.max(...names.map((n) => context.measureText(n).width)) + size;
    const toX = (s) => left + (s - endS + SPAN_S) / SPAN_S * (width - left);
    context.fillStyle = line;
    for (let s = Math.ceil(endS - SPAN_S); s <= endS; s++) context.fillRect(toX(s), 0, dense, height);
    names.forEach((name, i) => {
      context.fillStyle = text;
      context.fillText(name, size / 2, lane * (i + 0.5) + size * 0.35);
    });
    context.fillStyle = text;
    const step = (width - left) / (SPAN_S * RATE);
    for (const [at, root] of this.loud) {
      if (at < endS - SPAN_S || at > endS) continue;
      const tall = root * lane * 0.9;
      context.fillRect(toX(at), (lane - tall) / 2, Math.max(1, step), Math.max(0.5, tall));
    }
    this.heads.forEach(({ colour }, k) => {
      context.fillStyle = colour;
      this.levels.forEach(([at, levels], i) => {
        if (at < endS - SPAN_S || !levels[k]) return;
        const next = Math.min(this.levels[i + 1]?.[0] ?? at, at + HELD_S, endS);
        const tall = levels[k] * lane * 0.9;
        context.fillRect(toX(at), lane * (k + 2) - tall, Math.max(1, toX(next) - toX(at)), tall);
      });
    });
  }
}
