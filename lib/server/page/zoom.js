// Zoom of several views together: all show the same part of their pictures.

const most = 16;

/** Keeps a view filled: the picture's left or upper edge lies at most at the view's, the other one not before its end. */
const within = (/** @type {number} */ position, /** @type {number} */ scale) =>
  Math.min(0, Math.max(1 - scale, position));

export class Zoom {
  #scale = 1;
  /** Where the pictures' upper left corner lies, in sides of a view. */
  #x = 0;
  #y = 0;
  /** @type {HTMLElement} */ #root;
  /** @type {(scale: number) => void} */ #onChange;

  /**
   * @param {HTMLElement} root holds the views, elements of the class `view` with images in them
   * @param {(scale: number) => void} onChange
   */
  constructor(root, onChange) {
    this.#root = root;
    this.#onChange = onChange;
    for (const view of root.querySelectorAll('.view')) this.#listen(/** @type {HTMLElement} */ (view));
    addEventListener('resize', () => this.#show());
  }

  reset() {
    this.#move(1, 0, 0);
  }

  /**
   * Changes the scale around a point that stays where it is, in sides of a view.
   *
   * @param {number} factor
   */
  by(factor, x = 0.5, y = 0.5) {
    const scale = Math.min(most, Math.max(1, this.#scale * factor));
    const grown = scale / this.#scale;
    this.#move(scale, x - (x - this.#x) * grown, y - (y - this.#y) * grown);
  }

  /**
   * Moves the pictures, by sides of a view.
   *
   * @param {number} x
   * @param {number} y
   */
  pan(x, y) {
    this.#move(this.#scale, this.#x + x, this.#y + y);
  }

  /**
   * @param {number} scale
   * @param {number} x
   * @param {number} y
   */
  #move(scale, x, y) {
    this.#scale = scale;
    this.#x = within(x, scale);
    this.#y = within(y, scale);
    this.#show();
    this.#onChange(scale);
  }

  #show() {
    this.#root.classList.toggle('zoomed', this.#scale > 1);
    for (const view of this.#root.querySelectorAll('.view')) {
      const { width, height } = view.getBoundingClientRect();
      const transform = `translate(${this.#x * width}px, ${this.#y * height}px) scale(${this.#scale})`;
      for (const image of view.querySelectorAll('img')) image.style.transform = transform;
    }
    // From three screen pixels a picture's pixel on they are shown as squares, which is what they are.
    const [first] = this.#root.querySelectorAll('img');
    const pixels = (first.clientWidth * this.#scale * devicePixelRatio) / Math.max(1, first.naturalWidth);
    this.#root.classList.toggle('pixels', pixels >= 3);
  }

  /** @param {HTMLElement} view */
  #listen(view) {
    /** @param {MouseEvent} event */
    const place = (event) => {
      const { left, top, width, height } = view.getBoundingClientRect();
      return /** @type {const} */ ([(event.clientX - left) / width, (event.clientY - top) / height]);
    };
    view.addEventListener(
      'wheel',
      (event) => {
        event.preventDefault();
        this.by(2 ** (-event.deltaY / 300), ...place(event));
      },
      { passive: false },
    );
    view.addEventListener('dblclick', (event) => (this.#scale > 1 ? this.reset() : this.by(4, ...place(event))));
    /** Fingers, or the mouse, that lie on the view: one drags, two pinch. @type {Map<number, PointerEvent>} */
    const held = new Map();
    view.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      view.setPointerCapture(event.pointerId);
      held.set(event.pointerId, event);
      this.#root.classList.add('dragged');
    });
    view.addEventListener('pointermove', (event) => {
      const before = held.get(event.pointerId);
      if (!before) return;
      held.set(event.pointerId, event);
      const [x, y] = place(event);
      const [oldX, oldY] = place(before);
      const other = [...held.values()].find(({ pointerId }) => pointerId !== event.pointerId);
      if (!other) return this.pan(x - oldX, y - oldY);
      const [otherX, otherY] = place(other);
      // What lay under the fingers stays under them; the other one's turn to move comes with its own event.
      this.by(Math.hypot(x - otherX, y - otherY) / Math.hypot(oldX - otherX, oldY - otherY), otherX, otherY);
    });
    view.addEventListener('lostpointercapture', (event) => {
      held.delete(event.pointerId);
      if (!held.size) this.#root.classList.remove('dragged');
    });
  }
}
