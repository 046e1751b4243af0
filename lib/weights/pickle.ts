import { ReflError } from '../errors.ts';

/**
 * A name that a pickle refers to. A pickle can call what its globals name, and here nothing else exists to be called:
 * `call` makes a value from what the pickle gives it and may refuse it. One without `call` only stands for itself.
 */
export class Global {
  readonly name: string;
  readonly call?: (args: readonly unknown[]) => unknown;

  constructor(name: string, call?: (args: readonly unknown[]) => unknown) {
    this.name = name;
    this.call = call;
  }
}

/** An object of a class of which nothing is known but its name and what the pickle would set it up with. */
export class Instance {
  readonly name: string;
  state: unknown;

  constructor(name: string) {
    this.name = name;
  }
}

/** What a pickle may refer to. Both throw what ends the reading. */
export interface PickleContext {
  /** Begins every error. */
  readonly where: string;
  global(name: string): Global;
  persistent(id: unknown): unknown;
}

/** Thrown when the bytes end before the pickle does. */
export class PickleEnded extends ReflError {}

/**
 * Bytes of a pickle, of some 80,000 tensors: a hostile one takes seconds to read, during which nothing else happens.
 */
export const largestPickle = 16 << 20;

/** Limits that no checkpoint comes near and that keep a hostile one from exhausting memory. */
const mostObjects = 2_000_000;
const mostValues = 4_000_000;
const longestNumber = 64;
const longestName = 1000;

const utf8 = new TextDecoder('utf-8', { fatal: true });
const latin1 = new TextDecoder('latin1');

/**
 * Reads one pickle, of protocols 2 to 5, from byte `from` on. Dictionaries become maps, lists and tuples arrays, integers
 * bigints where numbers cannot hold them. Throws ERR_WEIGHTS on whatever is not a pickle, is too large or asks for
 * more than `context` gives; takes time and memory in proportion to the bytes.
 */
export function readPickle(bytes: Buffer, from: number, context: PickleContext): { value: unknown; end: number } {
  return new Machine(bytes, from, context).run();
}

/** The stack machine that a pickle is a program for. */
class Machine {
  readonly #bytes: Buffer;
  readonly #context: PickleContext;
  readonly #stack: unknown[] = [];
  /** Heights of the stack at which a mark stands. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, unknown>();
  #at: number;
  #objects = 0;

  constructor(bytes: Buffer, from: number, context: PickleContext) {
    this.#bytes = bytes;
    this.#at = from;
    this.#context = context;
  }

  run(): { value: unknown; end: number } {
    for (;;) {
      const opcode = String.fromCharCode(this.#byte());
      if (opcode === '.') return { value: this.#pop(), end: this.#at };
      const step = steps[opcode];
      if (!step) throw this.#fault(`byte ${this.#at - 1} is no operation of a pickle that holds weights`);
      step(this);
      if (this.#stack.length + this.#marks.length + this.#memo.size > mostValues) throw this.#tooLarge();
    }
  }

  static readonly steps: Readonly<Record<string, (m: Machine) => void>> = {
    '\x80': (m) => m.#protocol(),
    // A frame's length helps only those who read piecemeal.
    '\x95': (m) => m.#take(8),
    '(': (m) => m.#marks.push(m.#stack.length),
    '0': (m) => m.#discard(),
    '1': (m) => m.#popMark(),
    '2': (m) => m.#push(m.#top()),

    N: (m) => m.#push(null),
    '\x88': (m) => m.#push(true),
    '\x89': (m) => m.#push(false),
    I: (m) => m.#push(m.#decimal()),
    J: (m) => m.#push(m.#take(4).readInt32LE()),
    K: (m) => m.#push(m.#byte()),
    M: (m) => m.#push(m.#take(2).readUInt16LE()),
    G: (m) => m.#push(m.#take(8).readDoubleBE()),
    '\x8a': (m) => m.#push(m.#long(m.#byte())),
    '\x8b': (m) => m.#push(m.#long(m.#length4())),

    U: (m) => m.#push(latin1.decode(m.#take(m.#byte()))),
    T: (m) => m.#push(latin1.decode(m.#take(m.#length4()))),
    X: (m) => m.#push(m.#text(m.#length4())),
    '\x8c': (m) => m.#push(m.#text(m.#byte())),
    '\x8d': (m) => m.#push(m.#text(m.#length8())),
    B: (m) => m.#make(m.#take(m.#length4())),
    C: (m) => m.#make(m.#take(m.#byte())),
    '\x8e': (m) => m.#make(m.#take(m.#length8())),
    '\x96': (m) => m.#make(m.#take(m.#length8())),

    ')': (m) => m.#make([]),
    t: (m) => m.#make(m.#popMark()),
    '\x85': (m) => m.#make(m.#popMany(1)),
    '\x86': (m) => m.#make(m.#popMany(2)),
    '\x87': (m) => m.#make(m.#popMany(3)),
    ']': (m) => m.#make([]),
    a: (m) => m.#append(m.#popMany(1)),
    e: (m) => m.#append(m.#popMark()),
    '}': (m) => m.#make(new Map()),
    s: (m) => m.#setItems(m.#popMany(2)),
    u: (m) => m.#setItems(m.#popMark()),
    '\x8f': (m) => m.#make([]),
    '\x90': (m) => m.#append(m.#popMark()),
    '\x91': (m) => m.#make(m.#popMark()),

    q: (m) => m.#remember(m.#byte()),
    r: (m) => m.#remember(m.#length4()),
    '\x94': (m) => m.#remember(m.#memo.size),
    h: (m) => m.#recall(m.#byte()),
    j: (m) => m.#recall(m.#length4()),

    c: (m) => m.#global(m.#line(), m.#line()),
    '\x93': (m) => m.#global(...(m.#popMany(2) as [unknown, unknown])),
    i: (m) => m.#instance(m.#line(), m.#line()),
    o: (m) => m.#object(),
    R: (m) => m.#reduce(...(m.#popMany(2) as [unknown, unknown])),
    '\x81': (m) => m.#reduce(...(m.#popMany(2) as [unknown, unknown])),
    b: (m) => m.#build(m.#pop()),
    Q: (m) => m.#make(m.#context.persistent(m.#pop())),
  };

  #fault(why: string): ReflError {
    return new ReflError('ERR_WEIGHTS', `${this.#context.where}: the pickle is damaged: ${why}`);
  }

  #tooLarge(): ReflError {
    const why = `the pickle builds more than ${mostObjects} objects, as no weights do`;
    return new ReflError('ERR_WEIGHTS', `${this.#context.where}: ${why}`);
  }

  // Reading the program.

  #take(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) {
      throw new PickleEnded('ERR_WEIGHTS', `${this.#context.where}: the pickle is damaged: it ends too early`);
    }
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }

  #byte(): number {
    if (this.#at >= this.#bytes.length) this.#take(1);
    return this.#bytes[this.#at++];
  }

  #length4 = (): number => this.#take(4).readUInt32LE();

  #length8(): number {
    const length = this.#take(8).readBigUInt64LE();
    // More than any buffer has, so it is found to be missing.
    return Number(length);
  }

  #line(): string {
    const end = this.#bytes.indexOf('\n', this.#at);
    // What is missing lies behind all that is there.
    const line = latin1.decode(this.#take((end < 0 ? this.#bytes.length : end) - this.#at));
    this.#byte();
    return line;
  }

  #text(length: number): string {
    try {
      return utf8.decode(this.#take(length));
    } catch (error) {
      if (error instanceof ReflError) throw error;
      throw this.#fault(`a string before byte ${this.#at} is not UTF-8`);
    }
  }

  /** Protocol 2 of Python 2 writes integers of more than 32 bits so. */
  #decimal(): number | bigint {
    const line = this.#line();
    if (line.length > longestNumber || !/^-?\d+$/.test(line)) {
      throw this.#fault(`an integer before byte ${this.#at} is none`);
    }
    return exact(BigInt(line));
  }

  #long(length: number): number | bigint {
    if (length > longestNumber) throw this.#fault(`an integer at byte ${this.#at} has ${length} bytes`);
    const digits = this.#take(length);
    let value = 0n;
    for (let i = length; i-- > 0; ) value = (value << 8n) | BigInt(digits[i]);
    return exact(BigInt.asIntN(8 * length, value));
  }

  #protocol(): void {
    const protocol = this.#byte();
    if (protocol < 2 || protocol > 5) throw this.#fault(`its protocol is ${protocol}; 2 to 5 are known`);
  }

  // The stack.

  #push(value: unknown): void {
    this.#stack.push(value);
  }

  /** Pushes a value that takes memory of its own. */
  #make(value: unknown): void {
    if (++this.#objects > mostObjects) throw this.#tooLarge();
    this.#stack.push(value);
  }

  #top(): unknown {
    const height = this.#stack.length;
    if (height <= (this.#marks.at(-1) ?? 0)) throw this.#fault(`the operation before byte ${this.#at} lacks a value`);
    return this.#stack[height - 1];
  }

  #pop(): unknown {
    const value = this.#top();
    this.#stack.pop();
    return value;
  }

  #discard(): void {
    if (this.#stack.length === this.#marks.at(-1)) this.#marks.pop();
    else this.#pop();
  }

  #popMany(count: number): unknown[] {
    const values = new Array<unknown>(count);
    for (let i = count; i-- > 0; ) values[i] = this.#pop();
    return values;
  }

  #popMark(): unknown[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw this.#fault(`the operation before byte ${this.#at} lacks a mark`);
    return this.#stack.splice(mark);
  }

  #remember(index: number): void {
    this.#memo.set(index, this.#top());
  }

  #recall(index: number): void {
    if (!this.#memo.has(index)) throw this.#fault(`it refers to its value ${index}, which it never stored`);
    this.#push(this.#memo.get(index));
  }

  // Containers. What is set on an object of unknown class goes nowhere.

  #append(values: unknown[]): void {
    const list = this.#top();
    if (list instanceof Instance) return;
    if (!Array.isArray(list)) throw this.#fault(`the operation before byte ${this.#at} adds to what is no list`);
    for (const value of values) list.push(value);
  }

  #setItems(items: unknown[]): void {
    const dictionary = this.#top();
    if (dictionary instanceof Instance) return;
    if (!(dictionary instanceof Map) || items.length % 2) {
      throw this.#fault(`the operation before byte ${this.#at} sets items of what is no dictionary`);
    }
    for (let i = 0; i < items.length; i += 2) dictionary.set(items[i], items[i + 1]);
  }

  // Names and calls.

  #global(module: unknown, name: unknown): void {
    const ok = [module, name].every((text) => typeof text === 'string' && text.length <= longestName);
    if (!ok) throw this.#fault(`the operation before byte ${this.#at} has no proper names`);
    this.#make(this.#context.global(`${module}.${name}`));
  }

  #instance(module: string, name: string): void {
    const args = this.#popMark();
    this.#global(module, name);
    this.#reduce(this.#pop(), args);
  }

  #object(): void {
    const [made, ...args] = this.#popMark();
    this.#reduce(made, args);
  }

  #reduce(callee: unknown, args: unknown): void {
    if (!(callee instanceof Global && callee.call)) {
      const what = callee instanceof Global ? callee.name : 'a value';
      throw this.#fault(`it calls ${what} before byte ${this.#at}, which is no function`);
    }
    if (!Array.isArray(args)) throw this.#fault(`it calls ${callee.name} with what is no list of arguments`);
    // A call may go through a list that stands in the pickle once as often as it is called.
    for (const arg of args) this.#objects += Array.isArray(arg) ? arg.length : arg instanceof Map ? arg.size : 0;
    if (this.#objects > mostObjects) throw this.#tooLarge();
    this.#make(callee.call(args));
  }

  /** Attributes of what is known here, such as a state dict's `_metadata`, hold no weights. */
  #build(state: unknown): void {
    const object = this.#top();
    if (object instanceof Instance) object.state = state;
  }
}

const { steps } = Machine;

const exact = (value: bigint): number | bigint => {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
};
