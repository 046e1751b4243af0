// The page in a real Chromium. Where none is installed the tests are skipped; scripts/setup --test installs one where it can.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Annotations } from '../../lib/data/annotations.ts';
import type { Comparison } from '../../lib/data/comparisons.ts';
import { annotateApp } from '../../lib/server/annotate.ts';
import { Listening } from '../../lib/server/listen.ts';
import { temporaryFolder } from '../restore/support.ts';
import { chromiumPath, startChromium } from './browser.ts';
import { comparisonsIn, writePairs } from './pairs.ts';

const test = suite<{ browser: Browser }>('page annotate', {} as { browser: Browser });
const folder = temporaryFolder();
const comparisons = await comparisonsIn(await writePairs(folder, 6));

const path = chromiumPath();
if (!path) console.log('skipped: no Chromium is installed (apt-get install chromium)');
const here = path ? test : test.skip;
test.before(async (context) => {
  if (path) context.browser = await startChromium(path);
});
test.after(async ({ browser }) => {
  await browser?.close();
});

interface Opened extends AsyncDisposable {
  readonly page: Page;
  readonly url: string;
  /** What was written. */
  readonly lines: () => { pair: string; annotator: string; choice: string; left: string }[];
  /** Stops the server, as when refl-native ends; the page stays. */
  readonly stop: () => Promise<void>;
  readonly start: () => Promise<void>;
  /** Waits until a pair can be judged, or all are. */
  readonly ready: () => Promise<void>;
}

let files = 0;

/** Opens the page for somebody, or as somebody without a name finds it. Fails in the end where anything went wrong on it. */
async function open(browser: Browser, annotator = '', pairs: readonly Comparison[] = comparisons): Promise<Opened> {
  const out = join(folder, `choices-${files++}.jsonl`);
  let annotations: Annotations;
  let server: Listening;
  const start = async (port = 0): Promise<void> => {
    annotations = await Annotations.open(pairs, { out });
    server = await Listening.start(annotateApp(annotations), '127.0.0.1', port);
  };
  const stop = async (): Promise<void> => {
    await server.close();
    await annotations.close();
  };
  await start();
  const { port } = server!;
  const url = `http://127.0.0.1:${port}/`;
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  const wrong: string[] = [];
  page.on('pageerror', (error) => wrong.push(error.message));
  page.on('request', (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith('data:')) wrong.push(`asks for ${request.url()}`);
  });
  await page.goto(annotator ? `${url}#${encodeURIComponent(annotator)}` : url);
  const ready = async (): Promise<void> => {
    await page.waitForSelector('[data-side=skip][aria-disabled=false]:visible, #finished:visible');
  };
  if (annotator) await ready();
  return {
    page,
    url,
    stop,
    start: () => start(port),
    ready,
    lines: () =>
      readFileSync(out, 'utf8')
        .trim()
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line)),
    [Symbol.asyncDispose]: async () => {
      await page.close();
      await stop();
      assert.equal(wrong, []);
    },
  };
}

const count = (page: Page): Promise<string | null> => page.textContent('#count');
/** Waits until the page counts so many pairs as done. */
const counted = (page: Page, done: number): Promise<unknown> => page.waitForSelector(`#count:text-is("${done} of 6")`);

here(
  'a name is asked for, keys judge, and the choice is on the disk before the next pair shows',
  async ({ browser }) => {
    await using opened = await open(browser);
    const { page, lines, ready } = opened;
    await page.keyboard.type('  Ann Ö.  ');
    await page.keyboard.press('Enter');
    await ready();
    assert.is(await page.textContent('#who'), 'Ann Ö.');
    assert.match(page.url(), /#Ann%20%C3%96\.$/);
    for (const [i, key] of ['a', 'ArrowRight', 't', 's', 'B', 'ArrowLeft'].entries()) {
      const before = await page.getAttribute('#left', 'src');
      await page.keyboard.press(key);
      await counted(page, i + 1);
      assert.is(lines().length, i + 1);
      if (i < 5) assert.ok(before);
      await ready();
    }
    assert.ok(await page.isVisible('#finished'));
    assert.match((await page.textContent('#sum'))!, /^Ann Ö\. judged 5 pairs and skipped 1\.$/);
    const written = lines();
    const other = (left: string): string => (left === 'a' ? 'b' : 'a');
    const sides = written.map(({ choice, left }) =>
      choice === left ? 'left' : choice === other(left) ? 'right' : choice,
    );
    assert.equal(sides, ['left', 'right', 'tie', 'skip', 'right', 'left']);
    assert.is(new Set(written.map(({ pair }) => pair)).size, 6);
    assert.ok(written.every(({ annotator }) => annotator === 'Ann Ö.'));
  },
);

here('the pictures of a pair lie on the sides that are written', async ({ browser }) => {
  await using opened = await open(browser, 'bob');
  const { page, lines, ready } = opened;
  // a.png is 32 pixels wide, b.png 33, input.png 34.
  const width = (id: string): Promise<number> =>
    page.$eval(`#${id}`, (image) => (image as unknown as { naturalWidth: number }).naturalWidth);
  for (let i = 0; i < 6; i++) {
    const [left, right, input] = [await width('left'), await width('right'), await width('input')];
    assert.equal([left + right, input], [65, 34]);
    await page.keyboard.press('a');
    await counted(page, i + 1);
    const { left: wrote, choice } = lines()[i];
    assert.equal([wrote, choice], left === 32 ? ['a', 'a'] : ['b', 'b']);
    await ready();
  }
});

here('undo by key and by button, and buttons judge; a key held down judges once', async ({ browser }) => {
  await using opened = await open(browser, 'ann');
  const { page, lines, ready } = opened;
  await page.keyboard.down('a');
  await counted(page, 1);
  await ready();
  await page.keyboard.down('a');
  await page.keyboard.down('a');
  await page.keyboard.up('a');
  assert.is(await count(page), '1 of 6');
  await page.keyboard.press('u');
  await counted(page, 0);
  await ready();
  assert.is(await page.getAttribute('#undo', 'aria-disabled'), 'true');
  await page.keyboard.press('Control+a');
  assert.is(await count(page), '0 of 6');
  await page.click('[data-side=tie]');
  await counted(page, 1);
  await ready();
  // The button that was clicked keeps the focus, so that one can go on with Enter.
  assert.is(await page.evaluate('document.activeElement.dataset.side'), 'tie');
  await page.keyboard.press('Enter');
  await counted(page, 2);
  await ready();
  await page.click('#undo');
  await counted(page, 1);
  assert.equal(
    lines().map(({ choice }) => choice.replace(/^[ab]$/, 'x')),
    ['x', 'undo', 'tie', 'tie', 'undo'],
  );
  assert.is(lines()[0].pair, lines()[2].pair);
});

here(
  'all pictures zoom together, by key, wheel, dragging and fingers, and stay within their frames',
  async ({ browser }) => {
    await using opened = await open(browser, 'ann');
    const { page } = opened;
    const transforms = (): Promise<number[][]> =>
      page.$$eval('.view img:not(.under)', (images) =>
        images.map((image) => {
          const view = image.parentElement!.getBoundingClientRect();
          const own = image.getBoundingClientRect();
          // Scale, and the place of the upper left corner in sides of the view.
          return [own.width, own.left - view.left, own.top - view.top].map((v) => Number((v / view.width).toFixed(3)));
        }),
      );
    assert.equal(await transforms(), Array(3).fill([1, 0, 0]));
    await page.keyboard.press('+');
    assert.equal(await transforms(), Array(3).fill([2, -0.5, -0.5]));
    assert.is(await page.textContent('#scale'), '2×');
    const box = (await (await page.$('.a .view'))!.boundingBox())!;
    const corner = [box.x + box.width / 8, box.y + box.height / 8] as const;
    await page.mouse.move(...corner);
    await page.mouse.wheel(0, -300);
    await page.waitForSelector('#scale:text-is("4×")');
    const [[scale, x, y], ...others] = await transforms();
    assert.is(scale, 4);
    // What lies under the pointer stays there.
    assert.ok(Math.abs(x + 1.125) < 0.02 && Math.abs(y + 1.125) < 0.02, `${x}, ${y}`);
    assert.equal(others, [
      [scale, x, y],
      [scale, x, y],
    ]);
    await page.mouse.down();
    await page.mouse.move(corner[0] + box.width / 2, corner[1] + box.height, { steps: 5 });
    await page.mouse.up();
    const moved = (await transforms())[2];
    assert.ok(Math.abs(moved[1] - (x + 0.5)) < 0.02 && Math.abs(moved[2] - (y + 1)) < 0.02, `dragged to ${moved}`);
    await page.mouse.move(...corner);
    await page.mouse.down();
    await page.mouse.move(corner[0] + 3 * box.width, corner[1], { steps: 5 });
    await page.mouse.up();
    assert.is((await transforms())[0][1], 0);
    assert.is(await page.locator('#panels.pixels').count(), 1);
    for (let i = 0; i < 9; i++) await page.keyboard.press('+');
    assert.is((await transforms())[0][0], 16);
    await page.keyboard.press('0');
    assert.equal(await transforms(), Array(3).fill([1, 0, 0]));
    // Two fingers around the middle, twice as far apart in the end.
    const touch = await page.context().newCDPSession(page);
    const fingers = async (type: 'touchStart' | 'touchMove' | 'touchEnd', apart?: number): Promise<void> => {
      const middle = { x: box.x + box.width / 2, y: box.y + box.height / 2 };
      const touchPoints = apart ? [-1, 1].map((sign, id) => ({ ...middle, x: middle.x + (sign * apart) / 2, id })) : [];
      await touch.send('Input.dispatchTouchEvent', { type, touchPoints });
    };
    await fingers('touchStart', 100);
    for (const apart of [130, 170, 200]) await fingers('touchMove', apart);
    await fingers('touchEnd');
    await page.waitForSelector('#scale:text-is("2×")');
    const [pinched] = await transforms();
    assert.ok(Math.abs(pinched[1] + 0.5) < 0.02 && Math.abs(pinched[2] + 0.5) < 0.02, `pinched to ${pinched}`);
    await page.keyboard.press('Shift+ArrowLeft');
    await page.keyboard.press('Shift+ArrowDown');
    assert.equal((await transforms())[2], [2, pinched[1] + 0.25, pinched[2] - 0.25]);
    assert.is(await count(page), '0 of 6');
    await page.keyboard.press('0');
    await page.keyboard.down('i');
    assert.ok(await page.isVisible('.a .under'));
    await page.keyboard.up('i');
    assert.not.ok(await page.isVisible('.a .under'));
  },
);

here('when the server ends nothing is lost: the page says so, and goes on when it is back', async ({ browser }) => {
  await using opened = await open(browser, 'ann');
  const { page, lines, ready, stop, start } = opened;
  await page.keyboard.press('t');
  await counted(page, 1);
  await ready();
  await stop();
  await page.keyboard.press('t');
  await page.waitForSelector('#trouble:not([hidden])');
  assert.match((await page.textContent('#reason'))!, /is refl-native still running/);
  await page.keyboard.press('s');
  await start();
  await page.click('#again');
  await counted(page, 2);
  await ready();
  assert.not.ok(await page.isVisible('#trouble'));
  assert.equal(
    lines().map(({ choice }) => choice),
    ['tie', 'tie'],
  );
});

here('a pair that was judged in another window meanwhile is not judged twice', async ({ browser }) => {
  await using opened = await open(browser, 'ann');
  const { page, lines, ready, url } = opened;
  const state = (await (await fetch(`${url}api/state?annotator=ann`)).json()) as { now: { pair: string } };
  await fetch(`${url}api/choice`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ annotator: 'ann', pair: state.now.pair, side: 'skip' }),
  });
  await page.keyboard.press('a');
  await page.waitForSelector('#trouble:not([hidden])');
  assert.match((await page.textContent('#reason'))!, /judged the pair .* before/);
  await page.click('#again');
  await counted(page, 1);
  await ready();
  assert.is(lines().length, 1);
});

here('a picture that cannot be shown leaves skipping alone', async ({ browser }) => {
  const broken = join(folder, 'broken.png');
  writeFileSync(broken, 'no picture');
  await using opened = await open(browser, 'ann', [{ ...comparisons[0], b: broken }]);
  const { page, lines } = opened;
  assert.is(await page.locator('.view.broken').count(), 1);
  for (const key of ['a', 'b', 't']) await page.keyboard.press(key);
  assert.equal(lines(), []);
  await page.keyboard.press('s');
  await page.waitForSelector('#finished:not([hidden])');
  assert.is(lines()[0].choice, 'skip');
});

here('pairs without an input show two pictures', async ({ browser }) => {
  const { input: _, ...pair } = comparisons[0];
  await using opened = await open(browser, 'ann', [pair]);
  assert.is(await opened.page.locator('figure:visible').count(), 2);
});

here('every state of the page passes the rules of axe, on screens large and small', async ({ browser }) => {
  await using opened = await open(browser);
  const { page, ready } = opened;
  const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
  const check = async (what: string): Promise<void> => {
    await page.evaluate(axe);
    const found = (await page.evaluate('axe.run()')) as { violations: { id: string; nodes: { html: string }[] }[] };
    assert.equal(
      found.violations.map(({ id, nodes }) => `${what}: ${id}: ${nodes[0].html}`),
      [],
    );
  };
  await check('the name');
  await page.fill('#name', 'ann');
  await page.keyboard.press('Enter');
  await ready();
  await check('a pair');
  await page.setViewportSize({ width: 390, height: 780 });
  await check('a pair on a phone');
  const wide = await page.evaluate('document.documentElement.scrollWidth');
  assert.ok(Number(wide) <= 390, `the page is ${wide} pixels wide`);
  await page.keyboard.press('?');
  await page.waitForSelector('#agreement table');
  await check('the help');
  await page.keyboard.press('Escape');
  for (let i = 0; i < 6; i++) {
    await ready();
    await page.keyboard.press('t');
    await counted(page, i + 1);
  }
  await page.waitForSelector('#finalAgreement table');
  await check('the end');
});

test.run();
