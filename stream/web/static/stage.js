// The picture with each head's heat on it, blended here, and what is under the pointer.
// A map and its picture carry the same sequence number, and are drawn together or not at all.

const MAP = 1;

/** A map message to an object; heat is a Float32Array [K * H * W]. */
export function readMap(buffer) {
  const view = new DataView(buffer);
  const heads = view.getUint8(1);
  const height = view.getUint16(4, true), width = view.getUint16(6, true);
  const floats = new Float32Array(buffer, 24);
  const heat = floats.subarray(2 * heads);
  if (view.getUint8(0) !== MAP || heat.length !== heads * height * width) {
    throw new Error("not a map");
  }
  return {
    heads, height, width, heat,
    valid: view.getUint16(2, true),
    sequence: view.getUint32(8, true),
    rmsDbfs: view.getFloat32(12, true),
    captureS: view.getFloat64(16, true),
    threshold: floats.subarray(0, heads),
    ceiling: floats.subarray(heads, 2 * heads),
  };
}

/** Strengths in [0, 1] of each head, as the run's own scale has them; a head not valid is 0. */
export function strengths(map) {
  const size = map.height * map.width;
  const strength = new Float32Array(map.heads * size);
  for (let k = 0; k < map.heads; k++) {
    if (!(map.valid >> k & 1)) continue;
    const from = map.threshold[k], range = map.ceiling[k] - from;
    for (let i = k * size; i < (k + 1) * size; i++) {
      const raw = (map.heat[i] - from) / range;
      strength[i] = raw > 0 ? Math.min(raw, 1) : 0;
    }
  }
  return strength;
}

export class Stage {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.small = document.createElement("canvas");
    this.features = document.createElement("canvas"); // their colours; without any, of no size
    this.features.width = this.features.height = 0;
    this.colours = [];
    this.on = [];
    this.opacity = 0.75;
    this.view = "overlay";
    this.picture = null;
    this.map = null;
    this.strength = null;
    this.point = null; // in parts of the picture
  }

  setHeads(heads) {
    this.colours = heads.map(({ colour }) =>
      [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
    this.on = heads.map(() => true);
  }

  /** Take the colours of the features of the picture that comes next. */
  setFeatures(buffer) {
    const view = new DataView(buffer);
    const height = view.getUint16(2, true), width = view.getUint16(4, true);
    const rgb = new Uint8Array(buffer, 12);
    Object.assign(this.features, { height, width });
    const pen = this.features.getContext("2d"), image = pen.createImageData(width, height);
    for (let i = 0; i < height * width; i++) {
      image.data.set([rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2], 255], 4 * i);
    }
    pen.putImageData(image, 0, 0);
  }

  show(picture, map) {
    if (this.picture && this.picture !== picture) this.picture.close?.();
    this.picture = picture;
    this.width = picture.videoWidth ?? picture.width;
    this.height = picture.videoHeight ?? picture.height;
    this.map = map;
    this.strength = strengths(map);
    this.draw();
  }

  draw() {
    if (!this.picture) return;
    const shown = this.on.flatMap((on, k) => (on ? [k] : []));
    const groups = this.view === "both" && shown.length > 1 ? shown.map((k) => [k]) : [shown];
    const { width, height } = this;
    const stacked = groups.length > 1 && innerHeight > innerWidth;
    const across = stacked ? 1 : groups.length;
    this.resize(width * across, height * (stacked ? groups.length : 1));
    groups.forEach((group, i) => {
      this.context.save();
      this.context.translate(stacked ? 0 : i * width, stacked ? i * height : 0);
      this.drawOne(group, width, height);
      this.context.restore();
    });
  }

  resize(width, height) {
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
  }

  drawOne(group, width, height) {
    const { context } = this;
    if (this.view === "features") {
      context.fillStyle = "#181818";
      context.fillRect(0, 0, width, height);
      if (this.features.width) context.drawImage(this.features, 0, 0, width, height);
      return;
    }
    if (this.view === "heat") {
      context.fillStyle = "#000";
      context.fillRect(0, 0, width, height);
    } else {
      context.drawImage(this.picture, 0, 0, width, height);
    }
    if (this.view === "picture" || this.opacity === 0) return;
    const glowing = group.filter((k) => this.peak(k).strength > 0);
    if (!glowing.length) return;
    this.glow(glowing);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.small, 0, 0, width, height);
    for (const k of glowing) this.outline(k, width, height);
  }

  /** Mix the heads' colours on the feature grid: what is left of the picture, and light. */
  glow(group) {
    const { height, width } = this.map, size = height * width;
    this.small.width = width;
    this.small.height = height;
    const small = this.small.getContext("2d");
    const image = small.createImageData(width, height);
    for (let i = 0; i < size; i++) {
      let clear = 1, total = 0, red = 0, green = 0, blue = 0;
      for (const k of group) {
        const alpha = this.opacity * this.strength[k * size + i];
        clear *= 1 - alpha;
        total += alpha;
        red += alpha * this.colours[k][0];
        green += alpha * this.colours[k][1];
        blue += alpha * this.colours[k][2];
      }
      if (total > 0) image.data.set([red / total, green / total, blue / total,
        255 * (1 - clear)], 4 * i);
    }
    small.putImageData(image, 0, 0);
  }

  /** Draw a line round what is stronger than a half; heads differ by their dashes too. */
  outline(k, width, height) {
    const { context, map, strength } = this, at = 0.5;
    const offset = k * map.height * map.width;
    const value = (x, y) => strength[offset + Math.min(map.height - 1, Math.max(0, y)) * map.width
      + Math.min(map.width - 1, Math.max(0, x))];
    const toX = width / map.width, toY = height / map.height;
    context.beginPath();
    for (let y = 0; y < map.height - 1; y++) {
      for (let x = 0; x < map.width - 1; x++) {
        const corner = [value(x, y), value(x + 1, y), value(x + 1, y + 1), value(x, y + 1)];
        const place = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
        const cuts = [];
        for (let e = 0; e < 4; e++) {
          const a = corner[e], b = corner[(e + 1) % 4];
          if ((a > at) === (b > at)) continue;
          const t = (at - a) / (b - a), [p, q] = [place[e], place[(e + 1) % 4]];
          cuts.push([(p[0] + t * (q[0] - p[0]) + 0.5) * toX, (p[1] + t * (q[1] - p[1]) + 0.5) * toY]);
        }
        for (let c = 0; c + 1 < cuts.length; c += 2) {
          context.moveTo(...cuts[c]);
          context.lineTo(...cuts[c + 1]);
        }
      }
    }
    context.lineWidth = Math.max(1.5, Math.min(width, height) / 240);
    context.strokeStyle = `rgb(${this.colours[k].join()})`;
    context.setLineDash(k % 2 ? [context.lineWidth * 3, context.lineWidth * 2] : []);
    context.stroke();
  }

  /** The strongest place of a head, in parts of the picture. */
  peak(k) {
    const { height, width } = this.map, size = height * width;
    let best = k * size;
    for (let i = k * size; i < (k + 1) * size; i++) {
      if (this.strength[i] > this.strength[best]) best = i;
    }
    const cell = best - k * size;
    return {
      strength: this.strength[best],
      x: (cell % width + 0.5) / width,
      y: (Math.floor(cell / width) + 0.5) / height,
    };
  }

  /** The raw heat of every head at a point in parts of the picture. */
  read({ x, y }) {
    const { map } = this;
    const column = Math.min(map.width - 1, Math.floor(x * map.width));
    const row = Math.min(map.height - 1, Math.floor(y * map.height));
    const cell = row * map.width + column;
    return Array.from({ length: map.heads }, (_, k) => ({
      score: map.heat[k * map.height * map.width + cell], valid: Boolean(map.valid >> k & 1),
    }));
  }

  /** A place on the screen to parts of the picture that is there, or null. */
  partOf(clientX, clientY) {
    if (!this.picture) return null;
    const box = this.canvas.getBoundingClientRect(), { width, height } = this.canvas;
    const scale = Math.min(box.width / width, box.height / height); // as object-fit: contain has it
    const x = (clientX - box.left - (box.width - scale * width) / 2) / scale;
    const y = (clientY - box.top - (box.height - scale * height) / 2) / scale;
    if (x < 0 || y < 0 || x >= width || y >= height) return null;
    return { x: x / this.width % 1, y: y / this.height % 1 };
  }
}
