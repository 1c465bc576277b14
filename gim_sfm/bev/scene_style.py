"""Looks and behaviour of the page that shows a scene; nothing in here comes from a run."""

LOOKS = """
html, body { height: 100%; }
main { max-width: none; height: 100%; padding: 14px 18px 12px; display: flex; flex-direction: column;
  gap: 10px; }
header { margin: 0; display: flex; flex-wrap: wrap; gap: 8px 28px; align-items: flex-end; }
header > div:first-child { flex: 1 1 320px; }
h1 { font-size: 22px; line-height: 1.25; overflow-wrap: anywhere; }
header .figures { margin: 0; display: flex; flex-wrap: wrap; gap: 8px; }
.figure { padding: 6px 12px; } .figure b { font-size: 17px; } .figure span { font-size: 12px; }
nav { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; }
nav > div { display: flex; flex-wrap: wrap; gap: 6px; }
button { font: inherit; font-size: 13.5px; color: var(--ink); background: var(--card); cursor: pointer;
  border: 1px solid var(--line); border-radius: 8px; padding: 4px 11px; }
button:hover { border-color: var(--accent); }
button:focus-visible, canvas:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
button[aria-pressed=false] { color: var(--soft); background: transparent; text-decoration: line-through; }
.choice button[aria-pressed] { text-decoration: none; }
.choice button[aria-pressed=true] { background: var(--accent); border-color: var(--accent);
  color: var(--card); }
button i { display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 7px; }
button i.line { height: 3px; border-radius: 0; vertical-align: 3px; }
button[aria-pressed=false] i { opacity: .3; }
kbd { font: 11px ui-monospace, Consolas, monospace; opacity: .65; margin-left: 7px; }
.stage { position: relative; flex: 1 1 320px; min-height: 320px; border-radius: 10px; overflow: hidden;
  background: var(--stage); color: #c9d0d9; font-size: 13px; }
#orbit { position: absolute; inset: 0; height: 100%; }
.stage > div, .stage > p { position: absolute; pointer-events: none; margin: 0; }
#bar { left: 16px; bottom: 14px; border: 2px solid #c9d0d9; border-top: 0; text-align: center; height: 24px;
  text-shadow: 0 0 4px #10141b; }
#grid { right: 16px; bottom: 14px; text-shadow: 0 0 4px #10141b; }
#heights { right: 16px; top: 14px; width: 62px; height: 160px; display: flex; flex-direction: column;
  justify-content: space-between; border-right: 10px solid; text-align: right; padding-right: 8px;
  text-shadow: 0 0 4px #10141b;
  border-image: linear-gradient(#ffe45c, #8fd744 25%, #29af7f 50%, #3f74c4 75%, #6a4fc0) 1; }
#trouble { inset: 0; padding: 40px 24px; text-align: center; font-size: 16px; }
[hidden] { display: none !important; }
"""

VERTEX_SHADER = """
attribute vec3 place; attribute vec3 paint;
uniform mat4 whole; uniform vec4 upward; uniform vec2 heights; uniform vec3 ink;
uniform float size, kind, away; varying vec3 tone;
vec3 ramp(float t) {
  vec3 c = mix(vec3(.416, .310, .753), vec3(.247, .455, .769), clamp(4. * t, 0., 1.));
  c = mix(c, vec3(.161, .686, .498), clamp(4. * t - 1., 0., 1.));
  c = mix(c, vec3(.561, .843, .267), clamp(4. * t - 2., 0., 1.));
  return mix(c, vec3(1., .894, .361), clamp(4. * t - 3., 0., 1.));
}
void main() {
  gl_Position = whole * vec4(place, 1.);
  float far = gl_Position.w / away;
  gl_PointSize = max(1., size * clamp(1.25 / max(far, .01), .6, 4.));
  float height = (dot(upward, vec4(place, 1.)) - heights.x) / (heights.y - heights.x);
  tone = kind < .5 ? ink : kind < 1.5 ? paint : ramp(clamp(height, 0., 1.));
  tone = mix(tone, vec3(.063, .078, .106), .6 * smoothstep(.9, 3.5, far));
}
"""

FRAGMENT_SHADER = """
precision mediump float; varying vec3 tone; uniform float opacity;
void main() { gl_FragColor = vec4(tone, opacity); }
"""

SCRIPT = """
(() => {
  const $ = name => document.getElementById(name), stage = $('orbit');
  const scene = JSON.parse($('scene').textContent);
  const gl = stage.getContext('webgl', { antialias: true });
  if (!gl) { $('trouble').hidden = false; $('bar').hidden = $('grid').hidden = stage.hidden = true; return; }
  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const compile = (kind, text) => { const part = gl.createShader(kind);
    gl.shaderSource(part, text); gl.compileShader(part); return part; };
  const program = gl.createProgram();
  gl.attachShader(program, compile(gl.VERTEX_SHADER, $('vertex').textContent));
  gl.attachShader(program, compile(gl.FRAGMENT_SHADER, $('fragment').textContent));
  gl.bindAttribLocation(program, 0, 'place'); gl.bindAttribLocation(program, 1, 'paint');
  gl.linkProgram(program); gl.useProgram(program);
  const uniform = name => gl.getUniformLocation(program, name);
  const U = Object.fromEntries(['whole', 'upward', 'heights', 'ink', 'size', 'kind', 'away', 'opacity']
    .map(name => [name, uniform(name)]));
  const buffer = data => { const made = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, made); gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    return made; };

  // Matrices are lists of 4 rows, in double precision: survey coordinates would tremble in the shader.
  const times = (a, b) => a.map(row => b[0].map((_, k) => row.reduce((sum, v, i) => sum + v * b[i][k], 0)));
  const apply = (m, p) => m.slice(0, 3).map(r => r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3]);
  const still = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
  const layers = scene.layers.map(each => ({ ...each, shown: true, places: buffer(bytes(each.places)),
    paint: each.paint ? buffer(bytes(each.paint)) : null,
    unpacked: still.map((row, i) => i === 3 ? row : row.map((v, k) => k === 3 ? each.low[i] : v * each.step)),
  }));
  const states = Object.keys(scene.states);
  const view = { turn: -0.7, tilt: 0.62, away: 1, middle: [0, 0, 0], state: 0, size: 2, colour: 0,
    grid: true };
  const moved = layer => (scene.states[states[view.state]] || {})[layer.name] || still;
  const round = length => { const power = 10 ** Math.floor(Math.log10(length)), lead = length / power;
    return (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10) * power; };
  const told = length => `${+length.toPrecision(3)}${scene.unit ? ' ' + scene.unit : ''}`;

  const fit = () => {
    const shown = layers.filter(layer => layer.shown);
    const ends = shown.flatMap(layer => layer.box.map(p => apply(moved(layer), p)));
    if (!ends.length) return;
    const low = [0, 1, 2].map(i => Math.min(...ends.map(p => p[i])));
    const high = [0, 1, 2].map(i => Math.max(...ends.map(p => p[i])));
    view.middle = low.map((v, i) => (v + high[i]) / 2);
    view.away = 0.85 * Math.max(Math.hypot(...low.map((v, i) => high[i] - v)), 1e-9);
  };
  const axes = () => {
    const s = Math.sin(view.turn), c = Math.cos(view.turn), S = Math.sin(view.tilt), C = Math.cos(view.tilt);
    return { right: [c, s, 0], up: [-s * S, c * S, C], back: [s * C, -c * C, S] };
  };
  const FIELD = 0.42;
  const eye = () => {
    const { right, up, back } = axes(), m = view.middle, dot = a => a[0] * m[0] + a[1] * m[1] + a[2] * m[2];
    const wide = stage.width / stage.height, f = 1 / FIELD / Math.min(1, wide);
    const near = view.away / 200, far = view.away * 60, k = (far + near) / (near - far);
    const camera = [[...right, -dot(right)], [...up, -dot(up)], [...back, -dot(back) - view.away], still[3]];
    const lens = [[f / wide, 0, 0, 0], [0, f, 0, 0], [0, 0, k, 2 * far * near / (near - far)], [0, 0, -1, 0]];
    return times(lens, camera);
  };
  // Short pieces: a line from far before the eye to far behind it is lost in some drivers, and fades wrongly.
  const gridLines = [];
  for (let i = -24; i <= 24; i++) for (let k = -24; k < 24; k++)
    gridLines.push(i, k, 0, i, k + 1, 0, k, i, 0, k + 1, i, 0);
  const gridMatrix = step => { const [x, y] = view.middle.map(v => Math.round(v / step) * step);
    return [[step, 0, 0, x], [0, step, 0, y], [0, 0, step, scene.ground], [0, 0, 0, 1]]; };
  const grid = buffer(new Float32Array(gridLines));
  const flat = m => m[0].flatMap((_, k) => m.map(row => row[k]));
  const paintLayer = (matrix, model, kind) => {
    gl.uniformMatrix4fv(U.whole, false, flat(times(matrix, model)));
    gl.uniform4fv(U.upward, model[2]); gl.uniform1f(U.kind, kind);
  };
  const drawGrid = whole => {
    const step = round(view.away / 12);
    gl.bindBuffer(gl.ARRAY_BUFFER, grid);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0); gl.disableVertexAttribArray(1);
    gl.uniform3f(U.ink, 0.62, 0.68, 0.76); gl.uniform1f(U.opacity, 0.2);
    gl.enable(gl.BLEND); gl.depthMask(false); paintLayer(whole, gridMatrix(step), 0);
    gl.drawArrays(gl.LINES, 0, gridLines.length / 3); gl.depthMask(true); gl.disable(gl.BLEND);
    $('grid').textContent = `grid ${told(step)}`;
  };
  const drawLayer = (whole, layer) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, layer.places);
    gl.vertexAttribPointer(0, 3, gl.UNSIGNED_SHORT, false, 8, 0);
    if (layer.paint) { gl.bindBuffer(gl.ARRAY_BUFFER, layer.paint);
      gl.vertexAttribPointer(1, 3, gl.UNSIGNED_BYTE, true, 4, 0); gl.enableVertexAttribArray(1); }
    else gl.disableVertexAttribArray(1);
    gl.uniform3fv(U.ink, layer.colour.map(v => v / 255)); gl.uniform1f(U.opacity, 1);
    const kind = view.colour && !layer.lines ? 2 : layer.paint ? 1 : 0;
    paintLayer(whole, times(moved(layer), layer.unpacked), kind);
    gl.drawArrays(layer.lines ? gl.LINES : gl.POINTS, 0, layer.count);
  };
  const draw = () => {
    const ratio = window.devicePixelRatio || 1;
    stage.width = stage.clientWidth * ratio; stage.height = stage.clientHeight * ratio;
    gl.viewport(0, 0, stage.width, stage.height);
    gl.clearColor(0.063, 0.078, 0.106, 1); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST); gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    gl.enableVertexAttribArray(0); gl.uniform2fv(U.heights, scene.heights);
    gl.uniform1f(U.size, view.size * ratio); gl.uniform1f(U.away, view.away);
    const whole = eye();
    layers.filter(layer => layer.shown).forEach(layer => drawLayer(whole, layer));
    if (view.grid) drawGrid(whole);
    const wide = Math.min(1, stage.width / stage.height);
    const pixel = 2 * view.away * FIELD * wide / stage.clientHeight, length = round(130 * pixel);
    $('bar').style.width = `${length / pixel}px`; $('bar').textContent = told(length);
    $('grid').hidden = !view.grid; $('heights').hidden = !view.colour;
  };
  let asked = false;
  const redraw = () => { if (asked) return;
    asked = true; requestAnimationFrame(() => { asked = false; draw(); }); };

  const buttons = [];
  const button = (place, text, key, press, on) => {
    const made = document.createElement('button'); made.type = 'button'; made.append(...text);
    const hint = document.createElement('kbd'); hint.textContent = key; made.append(hint);
    const pressed = () => { press(); buttons.forEach(each => each.show()); redraw(); };
    const show = () => { if (on) made.setAttribute('aria-pressed', String(on())); };
    made.addEventListener('click', pressed); $(place).append(made); show();
    buttons.push({ key, pressed, show });
  };
  layers.forEach((layer, k) => {
    const dot = document.createElement('i'); dot.style.background = `rgb(${layer.colour})`;
    if (layer.lines) dot.className = 'line';
    button('layers', [dot, layer.name], String(k + 1),
      () => { layer.shown = !layer.shown; }, () => layer.shown);
  });
  const turn = by => { view.state = (view.state + by) % states.length; fit(); };
  if (states.length > 1) states.forEach((name, k) => button('states', [name], k ? '' : 'B',
    () => { if (view.state !== k) turn(k - view.state + states.length); }, () => view.state === k));
  else $('states').hidden = true;
  ['By cloud', 'By height'].forEach((name, k) => button('colours', [name], k ? '' : 'C',
    () => { view.colour = k; }, () => view.colour === k));
  button('others', ['Smaller points'], '-', () => { view.size = Math.max(1, view.size / 1.3); });
  button('others', ['Larger points'], '+', () => { view.size = Math.min(16, view.size * 1.3); });
  button('others', ['Grid'], 'G', () => { view.grid = !view.grid; }, () => view.grid);
  button('others', ['From above'], 'T', () => { view.turn = 0; view.tilt = Math.PI / 2; fit(); });
  button('others', ['Fit'], 'F', () => { view.turn = -0.7; view.tilt = 0.62; fit(); });
  const keys = { b: () => states.length > 1 && turn(1), c: () => { view.colour = 1 - view.colour; } };
  window.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key === '=' ? '+' : event.key.toLowerCase(), own = keys[key];
    const found = buttons.find(each => each.key.toLowerCase() === key);
    if (own) { own(); buttons.forEach(each => each.show()); redraw(); } else if (found) found.pressed();
  });

  const fingers = new Map();
  const pan = (dx, dy) => {
    const { right, up } = axes(), wide = Math.min(1, stage.width / stage.height);
    const pixel = 2 * view.away * FIELD * wide / stage.clientHeight;
    view.middle = view.middle.map((v, i) => v - (right[i] * dx - up[i] * dy) * pixel);
  };
  const zoom = by => { view.away *= by; };
  const spread = () => { const [a, b] = [...fingers.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, gap: Math.hypot(a.x - b.x, a.y - b.y) || 1 }; };
  stage.addEventListener('pointerdown', event => {
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  for (const end of ['pointerup', 'pointercancel'])
    stage.addEventListener(end, event => fingers.delete(event.pointerId));
  stage.addEventListener('pointermove', event => {
    const was = fingers.get(event.pointerId); if (!was) return;
    const before = fingers.size === 2 ? spread() : null, now = { x: event.clientX, y: event.clientY };
    fingers.set(event.pointerId, now);
    if (before) { const after = spread();
      pan(after.x - before.x, after.y - before.y); zoom(before.gap / after.gap); }
    else if (event.shiftKey || event.buttons > 1) pan(now.x - was.x, now.y - was.y);
    else { view.turn -= (now.x - was.x) / 200;
      view.tilt = Math.max(-1.57, Math.min(1.57, view.tilt + (now.y - was.y) / 200)); }
    redraw();
  });
  stage.addEventListener('contextmenu', event => event.preventDefault());
  stage.addEventListener('wheel', event => { event.preventDefault();
    zoom(Math.exp(Math.max(-120, Math.min(120, event.deltaY)) / 700)); redraw(); }, { passive: false });
  new ResizeObserver(redraw).observe(stage);
  fit(); redraw();
})();
"""
