import { createHash, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { getCookie, setCookie } from 'hono/cookie';
import { HTTPException } from 'hono/http-exception';
import { secureHeaders } from 'hono/secure-headers';
import { type Annotations, checkName, type Shown, type Side, sides } from '../data/annotations.ts';
import { ReflError } from '../errors.ts';
import { agreementOf } from '../eval/kappa.ts';
import { readBytes } from '../image/files.ts';
import { decodeImage, encodePng } from '../image/picture.ts';

/** The page's files, which are served as they are. lib/ lies beside dist/ in the package. */
const page = new URL('../../lib/server/page/', import.meta.url);
const assets: Readonly<Record<string, readonly [file: string, type: string]>> = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/style.css': ['style.css', 'text/css; charset=utf-8'],
  '/annotate.js': ['annotate.js', 'text/javascript; charset=utf-8'],
  '/zoom.js': ['zoom.js', 'text/javascript; charset=utf-8'],
};

/** What browsers show by themselves; anything else is sent as PNG. */
const browserTypes: Readonly<Record<string, string>> = {
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.jpeg': 'image/jpeg',
  '.webp': 'image/webp',
  '.gif': 'image/gif',
  '.avif': 'image/avif',
};

/** What the page gets to know of a pair: neither names nor paths, which may tell where a picture comes from. */
export interface ShownPair {
  readonly pair: string;
  /** Addresses of the pictures. */
  readonly left: string;
  readonly right: string;
  readonly input?: string;
}

/** Where an annotator stands, and what comes next. */
export interface State {
  readonly annotator: string;
  readonly pairs: number;
  readonly done: number;
  readonly skipped: number;
  /** The pair to judge; absent when all are done. */
  readonly now?: ShownPair;
  /** The pair after that, to be loaded meanwhile. */
  readonly next?: ShownPair;
}

/** A name that says nothing. */
const opaque = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 20);

const same = (a: string, b: string): boolean => timingSafeEqual(Buffer.from(opaque(a)), Buffer.from(opaque(b)));

/** The address as people type it, without the port. */
const hostOf = (context: Context): string => (context.req.header('host') ?? '').replace(/:\d+$/, '').toLowerCase();
const loopback = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/**
 * The page that asks people which of two pictures is better, and what it talks to: `GET /api/state`, `POST /api/choice`,
 * `POST /api/undo`, `GET /api/agreement`. A choice is on the disk before its answer, which brings the next pair.
 *
 * @param token what a browser must know; without one the page answers to names of this machine alone, so that no other site's
 *   page can reach it under a name of its own
 */
export function annotateApp(annotations: Annotations, token?: string): Hono {
  const app = new Hono();
  const pictures = new Map<string, string>();
  const pairs = new Map<string, string>();
  for (const { pair, a, b, input } of annotations.comparisons) {
    pairs.set(opaque(pair), pair);
    for (const path of [a, b, input]) if (path !== undefined) pictures.set(opaque(path), path);
  }
  const addressOf = (path: string): string => `/pictures/${opaque(path)}`;
  const toPage = ({ comparison: { pair, a, b, input }, left }: Shown): ShownPair => ({
    pair: opaque(pair),
    left: addressOf(left === 'a' ? a : b),
    right: addressOf(left === 'a' ? b : a),
    ...(input === undefined ? {} : { input: addressOf(input) }),
  });
  const stateOf = (annotator: string): State => {
    const [now, next] = annotations.remaining(annotator).slice(0, 2).map(toPage);
    const { pairs: all, done, skipped } = annotations.standing(annotator);
    return { annotator, pairs: all, done, skipped, ...(now && { now }), ...(next && { next }) };
  };

  app.use(secureHeaders({ contentSecurityPolicy: policy, referrerPolicy: 'no-referrer', xFrameOptions: 'DENY' }));
  app.use(token === undefined ? onlyHere : withToken(token));
  // A form of another site cannot send JSON, and its scripts may not.
  app.post('*', (context, next) =>
    /^application\/json\b/.test(context.req.header('content-type') ?? '')
      ? next()
      : context.json({ error: { message: 'JSON is needed' } }, 415),
  );
  app.use(bodyLimit({ maxSize: 10_000 }));

  for (const [path, [file, type]] of Object.entries(assets)) {
    app.get(path, async (context) =>
      context.body(await readFile(new URL(file, page)), 200, { 'content-type': type, 'cache-control': 'no-cache' }),
    );
  }
  app.get('/pictures/:id', async (context) => {
    const path = pictures.get(context.req.param('id'));
    if (path === undefined) return context.notFound();
    const type = browserTypes[extname(path).toLowerCase()];
    const bytes = type ? await readBytes(path) : await encodePng(await decodeImage(path));
    const headers = { 'content-type': type ?? 'image/png', 'cache-control': 'private, max-age=600' };
    return context.body(new Uint8Array(bytes), 200, headers);
  });
  app.get('/api/state', (context) => {
    const annotator = context.req.query('annotator') ?? '';
    checkName(annotator);
    return context.json(stateOf(annotator));
  });
  app.post('/api/choice', async (context) => {
    const { annotator, pair, side, seconds } = await bodyOf(context);
    const name = pairs.get(String(pair));
    if (name === undefined) throw new ReflError('ERR_OPTION', 'there is no such pair: load the page again');
    if (!sides.includes(side as Side)) throw new ReflError('ERR_OPTION', `side must be ${sides.join(', ')}`);
    const time = typeof seconds === 'number' && seconds >= 0 && seconds < 1e6 ? Number(seconds.toFixed(1)) : undefined;
    await annotations.choose(String(annotator), name, side as Side, time);
    return context.json(stateOf(String(annotator)));
  });
  app.post('/api/undo', async (context) => {
    const annotator = String((await bodyOf(context)).annotator);
    checkName(annotator);
    await annotations.undo(annotator);
    return context.json(stateOf(annotator));
  });
  app.get('/api/agreement', (context) =>
    context.json({ standings: annotations.standings(), agreement: agreementOf(annotations.verdicts()) }),
  );

  app.onError((error, context) => {
    if (error instanceof HTTPException) return error.getResponse();
    const code = error instanceof ReflError ? error.code : undefined;
    const status = code === 'ERR_OPTION' ? 400 : code === 'ERR_DATA' ? 409 : 500;
    return context.json({ error: { code, message: error.message } }, status);
  });
  return app;
}

/** Nothing from elsewhere, and nothing inline. */
const policy = {
  defaultSrc: ["'none'"],
  scriptSrc: ["'self'"],
  styleSrc: ["'self'"],
  imgSrc: ["'self'", 'data:'],
  connectSrc: ["'self'"],
  baseUri: ["'none'"],
  formAction: ["'none'"],
  frameAncestors: ["'none'"],
};

async function bodyOf(context: Context): Promise<Record<string, unknown>> {
  const body: unknown = await context.req.json().catch(() => undefined);
  if (typeof body === 'object' && body !== null) return body as Record<string, unknown>;
  throw new ReflError('ERR_OPTION', 'a JSON object is needed');
}

type Middleware = (context: Context, next: () => Promise<void>) => Promise<Response | undefined>;

const onlyHere: Middleware = async (context, next) => {
  if (!loopback.test(hostOf(context)))
    return context.text('This page answers to localhost and 127.0.0.1 alone.\n', 403);
  await next();
  return undefined;
};

/** Whoever opens the page's address with the token gets a cookie, and the address without it. */
function withToken(token: string): Middleware {
  const cookie = `refl-native-${opaque(token).slice(0, 8)}`;
  return async (context, next) => {
    const given = context.req.query('token');
    if (context.req.path === '/' && given !== undefined && same(given, token)) {
      setCookie(context, cookie, token, { httpOnly: true, sameSite: 'Strict', path: '/' });
      return context.redirect('/', 303);
    }
    if (!same(getCookie(context, cookie) ?? '', token))
      return context.text('Open the whole address that refl-native printed, with its token.\n', 401);
    await next();
    return undefined;
  };
}
