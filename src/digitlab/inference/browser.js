// Reads what is drawn with the model beside this page, in the browser itself: nothing is sent anywhere.
"use strict";
globalThis.reader = (() => {
  const bytes = text => Uint8Array.from(atob(text), each => each.charCodeAt(0));
  ort.env.wasm.numThreads = 1;
  const address = (part, type) => URL.createObjectURL(new Blob([part], {type}));
  // A page that was opened as a file may load no module by its name, and no other file.
  ort.env.wasm.wasmPaths = {mjs: address(bytes(RUNTIME.mjs), "text/javascript"), wasm: address(bytes(RUNTIME.wasm), "application/wasm")};
  const session = ort.InferenceSession.create(bytes(MODEL.onnx));
  const SIDE = 28, BOX = 20, FAINT = .3, FAINTEST = 12, SPECK = .08, LONGEST = 640;

  // Probabilities of one image: its bytes, row by row.
  async function predict(pixels) {
    const shape = [1, MODEL.height, MODEL.width, ...(MODEL.color ? [3] : [])];
    const found = await (await session).run({images: new ort.Tensor("uint8", Uint8Array.from(pixels), shape)});
    return [...found.probabilities.data];
  }
  // The mean over each pixel of a smaller grid, of `values` of width x height with `channels` numbers a pixel.
  function shrink(values, width, height, channels, toWidth, toHeight) {
    const out = new Float32Array(toWidth * toHeight * channels);
    const shares = (from, to, n) => {
      const low = n * from / to, high = (n + 1) * from / to, list = [];
      for (let i = Math.floor(low); i < Math.min(Math.ceil(high), from); i++) list.push([i, Math.min(i + 1, high) - Math.max(i, low)]);
      return list;
    };
    for (let y = 0; y < toHeight; y++) for (let x = 0; x < toWidth; x++) {
      let total = 0;
      const sums = new Float32Array(channels);
      for (const [row, tall] of shares(height, toHeight, y)) for (const [column, wide] of shares(width, toWidth, x)) {
        total += tall * wide;
        for (let c = 0; c < channels; c++) sums[c] += tall * wide * values[(row * width + column) * channels + c];
      }
      for (let c = 0; c < channels; c++) out[(y * toWidth + x) * channels + c] = sums[c] / total;
    }
    return out;
  }
  // Digits as MNIST has them, in reading order: 20 of 28 pixels long, centred by mass, white on black.
  function digits(gray, width, height) {
    const rim = [];
    for (let x = 0; x < width; x++) rim.push(gray[x], gray[(height - 1) * width + x]);
    const ground = median(rim), ink = gray.map(value => Math.abs(value - ground));
    const most = ink.reduce((a, b) => Math.max(a, b), 0);
    if (most < FAINTEST) return [];
    const labels = new Int32Array(width * height), strokes = [];
    for (let start = 0; start < ink.length; start++) if (ink[start] > FAINT * most && !labels[start]) {
      const stroke = {labels: [strokes.length + 1], left: width, top: height, right: 0, bottom: 0, weight: 0}, open = [start];
      labels[start] = stroke.labels[0];
      while (open.length) {
        const at = open.pop(), x = at % width, y = (at - x) / width;
        stroke.weight += ink[at];
        Object.assign(stroke, {left: Math.min(stroke.left, x), right: Math.max(stroke.right, x + 1), top: Math.min(stroke.top, y), bottom: Math.max(stroke.bottom, y + 1)});
        for (let dy = -1; dy < 2; dy++) for (let dx = -1; dx < 2; dx++) {
          const next = at + dy * width + dx;
          if (x + dx >= 0 && x + dx < width && next >= 0 && next < ink.length && ink[next] > FAINT * most && !labels[next]) {
            labels[next] = stroke.labels[0]; open.push(next);
          }
        }
      }
      strokes.push(stroke);
    }
    const heaviest = Math.max(...strokes.map(each => each.weight)), found = [];
    for (const each of strokes.filter(one => one.weight >= SPECK * heaviest).sort((a, b) => b.bottom - b.top - a.bottom + a.top)) {
      const whole = found.find(one => belongs(each, one));
      if (!whole) { found.push(each); continue; }
      whole.labels.push(...each.labels); whole.weight += each.weight;
      Object.assign(whole, {left: Math.min(whole.left, each.left), right: Math.max(whole.right, each.right), top: Math.min(whole.top, each.top), bottom: Math.max(whole.bottom, each.bottom)});
    }
    const lines = [];
    for (const each of found.sort((a, b) => a.top - b.top)) {
      const line = lines.find(one => one.some(other => Math.min(each.bottom, other.bottom) - Math.max(each.top, other.top) > .3 * Math.min(each.bottom - each.top, other.bottom - other.top)));
      line ? line.push(each) : lines.push([each]);
    }
    return lines.flatMap(line => line.sort((a, b) => a.left - b.left)).map(each => ({weight: each.weight, pixels: frame(each)}));

    // The bar of a 5 that does not touch the rest belongs to it.
    function belongs(part, digit) {
      const across = Math.min(part.right, digit.right) - Math.max(part.left, digit.left), down = Math.min(part.bottom, digit.bottom) - Math.max(part.top, digit.top);
      if (across > 0 && down > 0 && across * down > .4 * (part.right - part.left) * (part.bottom - part.top)) return true;
      return Math.max(-across, -down) < .25 * (digit.bottom - digit.top) && part.bottom - part.top < .6 * (digit.bottom - digit.top);
    }
    function frame({labels: own, left, top, right, bottom}) {
      const cut = new Float32Array((right - left) * (bottom - top));
      for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) if (own.includes(labels[y * width + x])) cut[(y - top) * (right - left) + x - left] = ink[y * width + x] / most;
      const scale = BOX / Math.max(right - left, bottom - top);
      const wide = Math.max(1, Math.round((right - left) * scale)), tall = Math.max(1, Math.round((bottom - top) * scale));
      const small = shrink(cut, right - left, bottom - top, 1, wide, tall);
      let mass = 0, across = 0, down = 0;
      small.forEach((value, n) => { mass += value; across += value * (n % wide); down += value * Math.floor(n / wide); });
      const clip = (value, length) => Math.min(Math.max(Math.round(SIDE / 2 - value), 0), SIDE - length);
      const x0 = clip(across / mass, wide), y0 = clip(down / mass, tall), out = new Float32Array(SIDE * SIDE);
      small.forEach((value, n) => { out[(y0 + Math.floor(n / wide)) * SIDE + x0 + n % wide] = 255 * value; });
      const fitted = shrink(out, SIDE, SIDE, 1, MODEL.width, MODEL.height);
      return MODEL.color ? Float32Array.from({length: 3 * fitted.length}, (_, n) => fitted[Math.floor(n / 3)]) : fitted;
    }
  }
  const median = values => values.sort((a, b) => a - b)[values.length >> 1], one = pixels => [{weight: 1, pixels}];
  async function see(body) {
    const bitmap = await createImageBitmap(body).catch(() => { throw new Error("this is not a readable image"); }), scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map(length => Math.max(1, Math.round(length * scale)));
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.fillStyle = "white"; context.fillRect(0, 0, width, height); context.drawImage(bitmap, 0, 0, width, height);
    const rgba = context.getImageData(0, 0, width, height).data, count = width * height;
    const gray = Float32Array.from({length: count}, (_, n) => .299 * rgba[4 * n] + .587 * rgba[4 * n + 1] + .114 * rgba[4 * n + 2]);
    if (MODEL.framed) return digits(gray, width, height);
    if (MODEL.color) return one(shrink(Float32Array.from({length: 3 * count}, (_, n) => rgba[4 * Math.floor(n / 3) + n % 3]), width, height, 3, MODEL.width, MODEL.height));
    const whole = shrink(gray, width, height, 1, MODEL.width, MODEL.height);
    const rim = [...whole.slice(0, MODEL.width), ...whole.slice(-MODEL.width)];
    return one(MODEL.onBlack && median(rim) > 127 ? whole.map(value => 255 - value) : whole);
  }
  function picture(pixels) {
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    canvas.width = MODEL.width; canvas.height = MODEL.height;
    const image = context.createImageData(MODEL.width, MODEL.height), channels = MODEL.color ? 3 : 1;
    for (let n = 0; n < MODEL.width * MODEL.height; n++) {
      for (let c = 0; c < 3; c++) image.data[4 * n + c] = pixels[channels * n + c % channels];
      image.data[4 * n + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return canvas.toDataURL();
  }
  async function look(body, many) {
    const seen = await see(body), largest = Math.max(...seen.map(each => each.weight));
    if (!seen.length) return [{name: MODEL.name, found: [], left_out: 0, reason: "shows nothing that differs from its ground"}];
    const chosen = many ? seen : [seen.find(each => each.weight === largest)], found = [];
    for (const each of chosen) {
      const pixels = Uint8Array.from(each.pixels, Math.round), probabilities = await predict(pixels);
      const best = probabilities.indexOf(Math.max(...probabilities));
      found.push({class: MODEL.classes[best], probabilities, seen: picture(pixels)});
    }
    return [{name: MODEL.name, found, left_out: seen.length - chosen.length}];
  }
  return {models: async () => [{name: MODEL.name, classes: MODEL.classes, finds_digits: MODEL.framed}], look, predict, isAlone: true};
})();
