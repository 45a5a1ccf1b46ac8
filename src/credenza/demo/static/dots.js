// A field of dots, one for each request of a stampede.
const COLUMNS = 50;
const TOTAL = 500;
const SPREAD = 700; // ms that the colouring takes; instant where motion is unwelcome

export class Dots {
  #canvas;
  #states = new Array(TOTAL).fill("pending");

  constructor(canvas) {
    this.#canvas = canvas;
    const scale = Math.max(window.devicePixelRatio, 1);
    canvas.width *= scale;
    canvas.height *= scale;
  }

  clear() {
    this.#states.fill("pending");
    this.#canvas.ariaLabel = "Not run yet";
    this.paint();
  }

  wait() {
    this.#states.fill("pending");
    this.#canvas.ariaLabel = `${TOTAL} requests under way`;
    this.paint();
  }

  /** Colours as many dots as queries have reached the database so far. */
  reach(queries) {
    this.#states.fill("miss", 0, Math.min(queries, TOTAL));
    this.paint();
  }

  /** Colours the dots: outcomes says how many requests ended how, such as {miss: 1, joined: 499}. */
  show(outcomes) {
    const states = ["miss", "bypass", "stale", "joined", "shared", "hit"].flatMap((status) => new Array(outcomes[status] ?? 0).fill(status));
    this.#canvas.ariaLabel = Object.entries(outcomes).map(([status, count]) => `${count} ${status}`).join(", ");
    this.#states.fill("pending");
    const motion = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    const started = performance.now();
    const step = (now) => {
      const share = motion ? Math.min((now - started) / SPREAD, 1) : 1;
      const upTo = Math.ceil(share * TOTAL);
      for (let i = 0; i < upTo; i++) this.#states[i] = states[i] ?? "pending";
      this.paint();
      if (share < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  paint() {
    const pen = this.#canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const rows = TOTAL / COLUMNS;
    const [wide, high] = [this.#canvas.width / COLUMNS, this.#canvas.height / rows];
    const radius = Math.min(wide, high) * 0.36;
    const colours = Object.fromEntries(["pending", "miss", "bypass", "stale", "joined", "shared", "hit"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
    pen.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#states.forEach((state, i) => {
      pen.fillStyle = colours[state];
      pen.beginPath();
      pen.arc(((i % COLUMNS) + 0.5) * wide, (Math.floor(i / COLUMNS) + 0.5) * high, radius, 0, 2 * Math.PI);
      pen.fill();
    });
  }
}
