"""Looks and behaviour of report.html; nothing in here comes from a run."""

STYLE = """
:root { --paper: #f6f5f2; --card: #fff; --ink: #22252a; --soft: #6a707a; --line: #e3e1db; --accent: #2563a8;
  --good: #2e7d4f; --bad: #b3401f; --bar: #7aa6d6; --mark: #c2511a;
  --stage: #10141b; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171c; --card: #1d2128; --ink: #e5e7ea; --soft: #98a0ab; --line: #30353e;
  --accent: #7db3ee; --good: #6cc793; --bad: #f08c6c; --bar: #3f6ea3; --mark: #ff8a4c;
  --stage: #10141b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 30px; margin: 0; font-weight: 650; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 0 0 12px; font-weight: 620; }
p { margin: 4px 0; } .soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
.marked { color: var(--mark); }
.key { display: inline-block; width: 10px; height: 10px; margin: 0 5px 0 8px; border-radius: 2px;
  background: #ff8a4c; }
.key.quiet { background: #7f93ad; }
header { margin-bottom: 22px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px;
  margin: 18px 0 0; }
.figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 11px 14px; }
.figure b { display: block; font-size: 22px; font-weight: 620; line-height: 1.25; }
.figure span { color: var(--soft); font-size: 13px; }
section { min-width: 0; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 18px 20px; margin: 16px 0; overflow-x: auto; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 16px; }
.columns section { margin: 0; }
#orbit { width: 100%; height: 460px; display: block; background: var(--stage); border-radius: 8px;
  cursor: grab; touch-action: none; }
.views { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; margin-top: 12px; }
.views figure { margin: 0; }
.views svg { width: 100%; background: var(--stage); border-radius: 8px; display: block; }
figcaption { color: var(--soft); font-size: 13px; padding-top: 4px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 12.5px; white-space: nowrap; }
th, td { padding: 6px 6px; border-bottom: 1px solid var(--line); vertical-align: middle; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.name { word-break: break-word; min-width: 110px; max-width: 220px; }
td.why { min-width: 200px; font-size: 13px; }
td.thumb { width: 104px; padding: 4px 9px 4px 0; }
td.thumb img, td.thumb i { display: block; width: 96px; height: 64px; object-fit: cover; border-radius: 5px;
  background: var(--line); }
td.seen { width: 184px; padding: 4px 9px 4px 0; }
td.seen svg, td.seen img, td.seen i { display: block; width: 174px; height: 116px; object-fit: contain;
  border-radius: 5px; background: var(--line); }
td.seen path { fill: none; stroke: #ffd23e; stroke-linecap: round; stroke-opacity: .85; }
td.list { min-width: 130px; font-size: 13px; overflow-wrap: anywhere; }
.badge { display: inline-block; border-radius: 20px; padding: 1px 9px; font-size: 12.5px; white-space: nowrap;
  border: 1px solid currentColor; }
svg text { fill: var(--soft); font-size: 11px; font-family: inherit; }
svg .value { fill: var(--ink); }
svg .bar { fill: var(--bar); } svg .empty { fill: var(--line); } svg .cell { fill: var(--accent); }
code, pre { font: 13px/1.45 ui-monospace, "SF Mono", Consolas, monospace; }
pre { overflow-x: auto; margin: 8px 0 0; }
summary { cursor: pointer; color: var(--soft); }
"""

SCRIPT = """
(() => {
  const stage = document.getElementById('orbit');
  if (!stage) return;
  const scene = JSON.parse(document.getElementById('scene').textContent);
  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const points = new Float32Array(bytes(scene.points).buffer);
  const colours = bytes(scene.colours);
  const cameras = new Float32Array(bytes(scene.cameras).buffer);
  const label = document.getElementById('orbit-name');
  const some = scene.marked.includes(1), isBright = k => !some || scene.marked[k] === 1;
  let turn = 0.6, tilt = 0.45, zoom = 1.5, shiftX = 0, shiftY = 0, held = null, idle = true;
  const place = (x, y, z, size) => {
    const a = x * Math.cos(turn) - y * Math.sin(turn), b = x * Math.sin(turn) + y * Math.cos(turn);
    const up = z * Math.cos(tilt) + b * Math.sin(tilt), far = b * Math.cos(tilt) - z * Math.sin(tilt);
    const scale = size * zoom / Math.max(0.2, 3.2 + far);
    return [a * scale + shiftX, -up * scale + shiftY, far];
  };
  const draw = () => {
    const ratio = window.devicePixelRatio || 1, width = stage.clientWidth, height = stage.clientHeight;
    stage.width = width * ratio; stage.height = height * ratio;
    const ink = stage.getContext('2d');
    ink.setTransform(ratio, 0, 0, ratio, width * ratio / 2, height * ratio / 2);
    const size = 1.25 * Math.min(width, height);
    for (let i = 0; i < points.length; i += 3) {
      const [x, y, far] = place(points[i], points[i + 1], points[i + 2], size);
      if (3.2 + far < 0.25) continue;
      ink.fillStyle = `rgb(${colours[i]},${colours[i + 1]},${colours[i + 2]})`;
      const dot = Math.max(1, 4.4 * Math.min(zoom, 3) / (3.2 + far));
      ink.fillRect(x - dot / 2, y - dot / 2, dot, dot);
    }
    ink.lineWidth = 1.3;
    for (const layer of [false, true]) for (let i = 0; i < cameras.length; i += 15) {
      if (isBright(i / 15) !== layer) continue;
      ink.strokeStyle = layer ? '#ff8a4c' : '#7f93ad';
      const corner = k => place(cameras[i + 3 * k], cameras[i + 3 * k + 1], cameras[i + 3 * k + 2], size);
      const eye = corner(0), rim = [1, 2, 3, 4].map(corner);
      ink.beginPath();
      rim.forEach((p, k) => { ink.moveTo(eye[0], eye[1]); ink.lineTo(p[0], p[1]);
        const q = rim[(k + 1) % 4]; ink.lineTo(q[0], q[1]); });
      ink.stroke();
    }
    return size;
  };
  stage.addEventListener('pointerdown', event => {
    held = event; idle = false; stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener('pointerup', () => { held = null; });
  stage.addEventListener('pointermove', event => {
    if (held) {
      const dx = event.clientX - held.clientX, dy = event.clientY - held.clientY;
      if (event.shiftKey) { shiftX += dx; shiftY += dy; }
      else { turn += dx / 180; tilt = Math.max(-1.55, Math.min(1.55, tilt + dy / 180)); }
      held = event; draw(); return;
    }
    const box = stage.getBoundingClientRect(), size = 1.25 * Math.min(box.width, box.height);
    const x = event.clientX - box.left - box.width / 2, y = event.clientY - box.top - box.height / 2;
    let best = 12, name = '', marked = false;
    for (let i = 0; i < cameras.length; i += 15) {
      const p = place(cameras[i], cameras[i + 1], cameras[i + 2], size);
      const gap = Math.hypot(p[0] - x, p[1] - y);
      const bright = some && isBright(i / 15);
      if (gap < best || (gap < 12 && gap < best + 1 && bright && !marked)) {
        best = gap; name = scene.names[i / 15]; marked = bright;
      }
    }
    label.textContent = name;
    label.className = marked ? 'marked' : 'soft';
  });
  stage.addEventListener('wheel', event => { event.preventDefault(); idle = false;
    zoom *= Math.exp(-event.deltaY / 600); draw(); }, { passive: false });
  window.addEventListener('resize', draw);
  const still = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
  const spin = () => { if (!idle || still) return; turn += 0.003; draw(); requestAnimationFrame(spin); };
  draw(); requestAnimationFrame(spin);
})();
"""
