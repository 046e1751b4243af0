// The page that asks: shows a pair, sends what is chosen, and shows the next pair once the answer is there, which is when the
// choice is on the server's disk.
import { Zoom } from './zoom.js';

/** @typedef {import('../annotate.ts').State} State */
/** @typedef {import('../annotate.ts').ShownPair} ShownPair */
/** @typedef {import('../../data/annotations.ts').Side} Side */
/** @typedef {import('../../data/annotations.ts').Standing} Standing */
/** @typedef {import('../../eval/kappa.ts').Agreement} Agreement */

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 */
const byId = (id) => /** @type {T} */ (document.getElementById(id));

const judging = byId('judging');
const panels = byId('panels');
const finished = byId('finished');
const naming = /** @type {HTMLDialogElement} */ (byId('naming'));
const help = /** @type {HTMLDialogElement} */ (byId('help'));
const nameField = /** @type {HTMLInputElement} */ (byId('name'));
const undoButton = byId('undo');
const choices = /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll('button[data-side]'));
const images = { left: picture('left'), right: picture('right'), input: picture('input') };
const zoom = new Zoom(panels, (scale) => {
  byId('scale').textContent = `${scale < 10 ? Number(scale.toFixed(1)) : Math.round(scale)}\u00d7`;
});

/** @param {string} id */
function picture(id) {
  return /** @type {HTMLImageElement} */ (byId(id));
}

/** @type {State | undefined} */
let state;
/** When the pair was there to be seen. */
let shownAt = 0;
/** Nothing may be chosen while something is sent or loaded. */
let busy = true;

/** What a request to the server failed with; `message` is for people. */
class Refused extends Error {
  /** @param {string} message @param {number} [status] */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {string} path
 * @param {object} [body]
 */
async function ask(path, body) {
  const options = body && {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  };
  const response = await fetch(path, options).catch(() => {
    throw new Refused('The server does not answer: is refl-native still running?');
  });
  if (response.ok) return response.json();
  const { error } = await response.json().catch(() => ({}));
  const { status } = response;
  throw new Refused(error?.message ?? `The server answers ${status}: open the address that it printed.`, status);
}

/**
 * Does something that needs the server; where it fails, says why and offers to do it once more.
 *
 * @param {() => Promise<void>} work
 */
async function attempt(work) {
  setBusy(true);
  try {
    await work();
    byId('trouble').hidden = true;
    setBusy(false);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    byId('reason').textContent = error.message;
    byId('trouble').hidden = false;
    // What was said elsewhere meanwhile is not there to be said again.
    byId('again').onclick = () => (state && error.status === 409 ? begin(state.annotator) : attempt(work));
    byId('again').focus();
  }
}

/**
 * Buttons keep the focus while they do nothing, which disabled ones would lose.
 *
 * @param {boolean} value
 */
function setBusy(value) {
  busy = value;
  const broken = panels.querySelector('.view.broken') !== null;
  for (const button of choices) button.ariaDisabled = String(busy || (broken && button.dataset.side !== 'skip'));
  undoButton.ariaDisabled = String(busy || !state?.done);
}

/** @param {string} text */
const tell = (text) => {
  byId('status').textContent = text;
};

/**
 * Loads a picture without showing it.
 *
 * @param {string} address
 */
async function load(address) {
  const image = new Image();
  image.src = address;
  await image.decode().catch(() => {
    // A broken picture is told where it is shown.
  });
}

/** @param {State} next */
async function show(next) {
  state = next;
  const { annotator, pairs, done, skipped, now } = next;
  const bar = /** @type {HTMLProgressElement} */ (byId('bar'));
  bar.max = pairs;
  bar.value = done;
  byId('count').textContent = `${done} of ${pairs}`;
  byId('who').textContent = annotator;
  byId('who').hidden = false;
  if (now) {
    await Promise.all([now.left, now.right, now.input].flatMap((address) => (address ? [load(address)] : [])));
    await place(now);
    tell(`Pair ${done + 1} of ${pairs}`);
  }
  judging.hidden = !now;
  finished.hidden = Boolean(now);
  // Views have a size only from here on.
  zoom.reset();
  shownAt = performance.now();
  for (const address of next.next ? [next.next.left, next.next.right, next.next.input] : []) if (address) load(address);
  if (now) return;
  byId('sum').textContent = `${annotator} judged ${done - skipped} pairs and skipped ${skipped}.`;
  showAgreement(byId('finalAgreement'));
  finished.querySelector('h2')?.focus();
}

/** @param {ShownPair} pair */
async function place({ left, right, input }) {
  panels.classList.toggle('pair', !input);
  byId('inputPanel').hidden = !input;
  for (const figure of panels.querySelectorAll('figure')) figure.classList.remove('chosen');
  const unders = /** @type {NodeListOf<HTMLImageElement>} */ (panels.querySelectorAll('img.under'));
  for (const under of unders) setSource(under, input);
  await Promise.all(
    Object.entries({ left, right, input }).map(([side, address]) => put(images[/** @type {'left'} */ (side)], address)),
  );
}

/**
 * @param {HTMLImageElement} image
 * @param {string | undefined} address
 */
function setSource(image, address) {
  if (address) image.src = address;
  else image.removeAttribute('src');
}

/**
 * @param {HTMLImageElement} image
 * @param {string | undefined} address
 */
async function put(image, address) {
  setSource(image, address);
  const fine =
    !address ||
    (await image.decode().then(
      () => true,
      () => false,
    ));
  image.closest('.view')?.classList.toggle('broken', !fine);
}

/** @param {Side} side */
function choose(side) {
  const pair = state?.now;
  const button = [...choices].find(({ dataset }) => dataset.side === side);
  if (!state || !pair || button?.ariaDisabled === 'true') return;
  const { annotator } = state;
  const seconds = (performance.now() - shownAt) / 1000;
  if (side === 'left' || side === 'right') images[side].closest('figure')?.classList.add('chosen');
  attempt(async () => show(await ask('/api/choice', { annotator, pair: pair.pair, side, seconds })));
}

function undo() {
  if (busy || !state?.done) return;
  const { annotator } = state;
  attempt(async () => {
    await show(await ask('/api/undo', { annotator }));
    tell('Taken back: judge this pair again.');
  });
}

/** @param {string} annotator */
const begin = (annotator) =>
  attempt(async () => show(await ask(`/api/state?annotator=${encodeURIComponent(annotator)}`)));

function askName() {
  nameField.value = state?.annotator ?? '';
  byId('nameError').textContent = '';
  naming.showModal();
}

/** @param {HTMLElement} place */
async function showAgreement(place) {
  place.replaceChildren();
  /** @type {{ standings: Standing[], agreement: Agreement }} */
  const { standings, agreement } = await ask('/api/agreement').catch(() => ({
    standings: [],
    agreement: { couples: [] },
  }));
  /** @param {number | null} value */
  const percent = (value) => (value === null ? '\u2013' : `${Math.round(100 * value)}%`);
  /** @param {number | null} value */
  const decimal = (value) => (value === null ? '\u2013' : value.toFixed(2));
  const people = standings.map(({ annotator, done, skipped, decided, leftChosen }) => [
    annotator,
    `${done - skipped}`,
    `${skipped}`,
    percent(decided ? leftChosen / decided : null),
  ]);
  place.append(table('Who judged what', ['Name', 'Judged', 'Skipped', 'Left preferred'], people));
  const { couples, all } = agreement;
  if (!couples.length) return;
  const rows = couples.map(({ annotators, pairs, share, kappa }) => [
    annotators.join(', '),
    `${pairs}`,
    percent(share),
    decimal(kappa),
  ]);
  place.append(table('Agreement of two, on pairs that both judged', ['Names', 'Pairs', 'Same', "Cohen's kappa"], rows));
  if (!all) return;
  const row = [`${all.annotators}`, `${all.pairs}`, percent(all.share), decimal(all.kappa)];
  place.append(
    table('Agreement of all, on pairs that two or more judged', ['People', 'Pairs', 'Same', "Fleiss' kappa"], [row]),
  );
}

/**
 * @param {string} title
 * @param {string[]} head
 * @param {string[][]} rows
 */
function table(title, head, rows) {
  const made = document.createElement('table');
  made.createCaption().textContent = title;
  const top = made.createTHead().insertRow();
  const body = made.createTBody();
  /** @param {HTMLTableRowElement} row @param {string} text @param {string} scope */
  const headCell = (row, text, scope) => {
    const cell = document.createElement('th');
    cell.scope = scope;
    cell.textContent = text;
    row.append(cell);
  };
  for (const text of head) headCell(top, text, 'col');
  for (const [first, ...rest] of rows) {
    const row = body.insertRow();
    headCell(row, first, 'row');
    for (const text of rest) row.insertCell().textContent = text;
  }
  return made;
}

/** @type {Record<string, () => void>} */
const keys = {
  a: () => choose('left'),
  arrowleft: () => choose('left'),
  b: () => choose('right'),
  arrowright: () => choose('right'),
  t: () => choose('tie'),
  arrowdown: () => choose('tie'),
  s: () => choose('skip'),
  u: undo,
  backspace: undo,
  '+': () => zoom.by(2),
  '=': () => zoom.by(2),
  '-': () => zoom.by(1 / 2),
  0: () => zoom.reset(),
  'shift+arrowleft': () => zoom.pan(0.25, 0),
  'shift+arrowright': () => zoom.pan(-0.25, 0),
  'shift+arrowup': () => zoom.pan(0, 0.25),
  'shift+arrowdown': () => zoom.pan(0, -0.25),
  i: () => panels.classList.add('peek'),
  '?': openHelp,
};

function openHelp() {
  showAgreement(byId('agreement'));
  help.showModal();
}

document.addEventListener('keydown', (event) => {
  if (naming.open || help.open || event.altKey || event.repeat) return;
  const name = event.key.toLowerCase();
  const key = event.shiftKey && name.startsWith('arrow') ? `shift+${name}` : name;
  // Other combinations belong to the browser.
  const back = (event.ctrlKey || event.metaKey) && key === 'z';
  const act = back ? undo : event.ctrlKey || event.metaKey ? undefined : keys[key];
  if (!act) return;
  event.preventDefault();
  act();
});
document.addEventListener('keyup', (event) => {
  if (event.key.toLowerCase() === 'i') panels.classList.remove('peek');
});
addEventListener('blur', () => panels.classList.remove('peek'));

for (const button of choices) button.onclick = () => choose(/** @type {Side} */ (button.dataset.side));
undoButton.onclick = undo;
byId('undoLast').onclick = undo;
byId('who').onclick = askName;
byId('about').onclick = openHelp;
byId('in').onclick = () => zoom.by(2);
byId('out').onclick = () => zoom.by(1 / 2);
byId('fit').onclick = () => zoom.reset();
naming.addEventListener('cancel', (event) => {
  // Without a name there is nothing to go back to.
  if (!state) event.preventDefault();
});
byId('nameForm').addEventListener('submit', async (event) => {
  event.preventDefault();
  const name = nameField.value.trim();
  try {
    await ask(`/api/state?annotator=${encodeURIComponent(name)}`);
  } catch (error) {
    byId('nameError').textContent = /** @type {Error} */ (error).message;
    return;
  }
  history.replaceState(null, '', `#${encodeURIComponent(name)}`);
  naming.close();
  await begin(name);
});

/** The name stands in the address: a bookmark is a person's own, and whoever comes without one is asked. */
function nameInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return '';
  }
}

const known = nameInAddress();
if (known) begin(known);
else askName();
