// A node that is ready before anybody asks: it has loaded what an entry script imports, and waits for its order just
// before the script itself. muxsim starts it as `node [OPTIONS] warm_node.cjs PLAN`, PLAN being JSON:
//
//   {"entry": path, "at": index, "late": [names], "lateCwd": bool, "skip": [module keys], "compileCache": folder or ""}
//
// It takes a tag of 32 bytes from stdin, which no module can guess, and writes one line of JSON with that "tag" to stdout:
// {"files": […]} when it is ready, {"skip": key, "reads": what} (start another one that leaves this module out) or
// {"refused": why}. In the first case it takes its order from stdin: four bytes, the
// length, most significant first, and JSON {"argv": […], "env": {…}, "cwd": …, "umask": number or null}, whose argv is the
// whole command line, with the entry at index `at`. Not a byte more is read. From then on it is what that command line
// would be.
//
// A module may be loaded early only if it would see the same later. What an order brings (argv, the variables in
// `late`, perhaps the cwd, and all that comes on stdin) is therefore watched while modules load, as is the time that one
// sets, and the first module that looks is named, to be left out together with all that is evaluated after it: the order of evaluation stays
// the script's own.

'use strict';

const fs = require('node:fs');
const Module = require('node:module');
const path = require('node:path');
const vm = require('node:vm');
const { pathToFileURL, fileURLToPath } = require('node:url');

const FILES_LIMIT = 500; // of a package's own files that are watched for changes; more would cost every start

// With --import, a node before 22 runs any script as it runs what `import` names.
const NAMED_BY_FILE = parseInt(process.versions.node) < 22 && process.execArgv.some((one) => one.startsWith('--import'));

const SCRIPT = /\.[cm]?js$/;
const COMMENT = /\/\*[^]*?\*\//g;
const STATIC = /(?:^|;)\s*(?:import|export)\b\s*(?:[\w$*{}\s,]+?\bfrom\b)?\s*["']([^"'\n]+)["'](?!\s*(?:with|assert)\b)/gm;
const DYNAMIC = /\bimport\(\s*["']([^"'\n]+)["']\s*\)/g;
const REQUIRE = /\brequire\(\s*["']([^"'\n]+)["']\s*\)/g;
const REQUIRE_AT_TOP =
  /^(?:(?:const|let|var)\s+[^=;]+=\s*(?:__import\w+\()?)?require\(["']([^"'\n]+)["']\)(\)|\.\w+)*\s*([;,(]|$)/gm;
const MODULE_SYNTAX = /^\s*(?:import\b\s*[\w$*{"']|export\b\s*[\w$*{])/m;
const STDIO_TRANSPORT = /\bstdio(\.[cm]?js)?$/;

// ---- what the script imports ----

/** The text of a script without block comments, in which an import would not count. */
function sourceOf(file) {
  return fs.readFileSync(file, 'utf8').replace(COMMENT, '');
}

const all = (pattern, text) => Array.from(text.matchAll(pattern), (match) => match[1]);

const isRelative = (specifier) => /^\.{1,2}\//.test(specifier);

/** The file that a relative import of an ES module names, or null. */
function besides(file, specifier) {
  const target = fileURLToPath(new URL(specifier, pathToFileURL(file)));
  try {
    return fs.statSync(target).isFile() ? fs.realpathSync(target) : null;
  } catch {
    return null;
  }
}

/** As `besides`, where require may leave out the ending. */
function besidesRequire(file, specifier) {
  try {
    return Module.createRequire(file).resolve(specifier);
  } catch {
    return null;
  }
}

/** The package's own files that the script can reach, itself first. */
function ownFiles(entry) {
  const found = new Set([entry]);
  for (const file of found) {
    if (!SCRIPT.test(file) && file !== entry) continue;
    const source = sourceOf(file);
    for (const specifier of [...all(STATIC, source), ...all(DYNAMIC, source), ...all(REQUIRE, source)]) {
      if (!isRelative(specifier)) continue;
      const target = besides(file, specifier) ?? besidesRequire(file, specifier);
      if (target === entry && file !== entry) throw new Refused('a module imports the entry script itself');
      if (target !== null && found.size < FILES_LIMIT) found.add(target);
    }
  }
  return [...found, ...manifests(entry)];
}

/** The nearest package.json, which may change what runs. */
function manifests(file) {
  for (let folder = path.dirname(file); ; folder = path.dirname(folder)) {
    const manifest = path.join(folder, 'package.json');
    if (fs.existsSync(manifest)) return [manifest];
    if (folder === path.dirname(folder)) return [];
  }
}

class Refused extends Error {}

/** "esm" or "cjs", as node would take it; Refused where only running it would tell. */
function kindOf(entry) {
  const ending = path.extname(entry);
  if (ending === '.mjs') return 'esm';
  if (ending === '.cjs') return 'cjs';
  if (ending !== '.js' && ending !== '') throw new Refused(`an entry script cannot end in ${ending}`);
  const [manifest] = manifests(entry);
  const type = manifest && JSON.parse(fs.readFileSync(manifest, 'utf8')).type;
  if (type === 'module' && ending === '.js') return 'esm';
  if (type === 'module') throw new Refused('the entry script of a module package needs an ending');
  if (type !== 'commonjs' && MODULE_SYNTAX.test(sourceOf(entry))) {
    throw new Refused('whether the entry script is a module is said by no "type" in its package.json');
  }
  return 'cjs';
}

// ---- watching what modules look at ----

/** Replaces what an order will bring by what tells who looks at it, until `end`. */
class Watch {
  #seen = null;
  #stdin = null;
  #argv = process.argv;
  #env = process.env;
  #restore = [];

  constructor({ entry, late, lateCwd }) {
    this.#argv.splice(1, Infinity, path.resolve(entry));
    const names = new Set(late);
    this.#put('argv', {
      value: new Proxy(this.#argv, {
        get: (argv, key) => {
          if (key !== '0' && key !== '1') this.#note('process.argv');
          return argv[key];
        },
      }),
    });
    this.#put('env', {
      value: new Proxy(this.#env, {
        get: (env, name) => {
          if (names.has(name)) this.#note(`the variable ${name}`);
          return env[name];
        },
        set: (env, name, value) => {
          env[name] = value;
          return true;
        },
      }),
    });
    const stdin = Object.getOwnPropertyDescriptor(process, 'stdin');
    // To be there is not yet to be used: whoever imports all of node:process makes it.
    this.#put('stdin', { get: () => (this.#stdin = stdin.get.call(process)) });
    if (lateCwd) {
      const cwd = process.cwd;
      this.#put('cwd', {
        value: () => {
          this.#note('the working directory');
          return cwd.call(process);
        },
      });
    }
  }

  #put(name, change) {
    const before = Object.getOwnPropertyDescriptor(process, name);
    const rest = { configurable: true, enumerable: before.enumerable };
    if ('value' in change) rest.writable = true;
    Object.defineProperty(process, name, { ...rest, ...change });
    this.#restore.push(() => Object.defineProperty(process, name, before));
  }

  #note(what) {
    this.#seen ??= what;
  }

  /** What was looked at so far, or null. */
  get seen() {
    const stdin = this.#stdin;
    const isRead = stdin && (stdin.readableFlowing !== null || stdin.listenerCount('readable') > 0);
    // Time passes while this waits; what keeps no process alive is no time that anybody has set.
    const isTimed = process.getActiveResourcesInfo?.().includes('Timeout');
    return this.#seen ?? (isRead ? 'stdin' : isTimed ? 'the time' : null);
  }

  end() {
    for (const restore of this.#restore) restore();
  }
}

// ---- loading early ----

class Skip extends Error {
  constructor(key, reads) {
    super(key);
    this.key = key;
    this.reads = reads;
  }
}

/** Loads modules in the order in which the script would, up to the first that has to be left out. */
class Preload {
  #watch;
  #skip;

  constructor(watch, skip) {
    this.#watch = watch;
    this.#skip = new Set(skip);
  }

  #check(key) {
    if (this.#watch.seen !== null) throw new Skip(key, this.#watch.seen);
  }

  /** Loads what an ES module imports; false if something had to be left out. */
  async imports(file) {
    const source = sourceOf(file);
    for (const specifier of all(STATIC, source)) {
      if (!(await this.#import(file, specifier))) return false;
    }
    // muxsim runs servers on stdio only: of several ways to go on, each session takes the one with that transport.
    const onward = all(DYNAMIC, source)
      .filter(isRelative)
      .map((specifier) => besides(file, specifier))
      .filter((target) => target && all(STATIC, sourceOf(target)).some((name) => STDIO_TRANSPORT.test(name)));
    if (onward.length === 1) await this.imports(onward[0]);
    return true;
  }

  async #import(file, specifier) {
    const target = isRelative(specifier) ? besides(file, specifier) : null;
    const key = target ?? specifier;
    if (this.#skip.has(key)) {
      if (target !== null && SCRIPT.test(target)) await this.imports(target);
      return false;
    }
    try {
      await importFrom(file, specifier);
    } catch {
      // Perhaps no import at all; if it is one, the script will meet the same error, and say so itself.
    }
    this.#check(key);
    return true;
  }

  /** Loads what a CommonJS script requires at its top, in so far as nothing is done with it there. */
  requires(main, file) {
    for (const [, specifier, , then] of sourceOf(file).matchAll(REQUIRE_AT_TOP)) {
      const key = besidesRequire(file, specifier) ?? specifier;
      if (this.#skip.has(key) || then === '(') return;
      try {
        main.require(specifier);
      } catch {
        // As above.
      }
      this.#check(key);
    }
  }
}

/** The module that the package's author wants to have run beforehand: package.json's `muxsim.rehearse`. */
function rehearsalOf(entry) {
  const [manifest] = manifests(entry);
  const { muxsim } = manifest ? JSON.parse(fs.readFileSync(manifest, 'utf8')) : {};
  return muxsim?.rehearse ? [path.resolve(path.dirname(manifest), muxsim.rehearse)] : [];
}

async function rehearse(module, watch) {
  await import(pathToFileURL(module).href);
  if (watch.seen !== null) throw new Skip(module, watch.seen);
}

/** What `import(specifier)` in this file would give. */
function importFrom(file, specifier) {
  if (isRelative(specifier)) return import(new URL(specifier, pathToFileURL(file)).href);
  const importModuleDynamically = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER;
  if (importModuleDynamically === undefined) throw new Refused('needs Node.js 20.12 or newer');
  const { emitWarning } = process;
  process.emitWarning = () => {}; // that the constant is experimental is nothing for the environment's log
  try {
    const options = { filename: file, importModuleDynamically };
    return new vm.Script('(specifier) => import(specifier)', options).runInThisContext()(specifier);
  } finally {
    process.emitWarning = emitWarning;
  }
}

// ---- the order ----

const TAG_SIZE = 32;

/** What reports carry; taken before any module of the environment's is loaded. */
let tag = '';

function say(message) {
  // On a line of its own, whatever a module has begun to print.
  fs.writeSync(1, `\n${JSON.stringify({ tag, ...message })}\n`);
}

/** Reads so many bytes and no more; null at the end of stdin: nobody will ever ask. */
function readExactly(fd, size) {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; ) {
    const count = fs.readSync(fd, bytes, at, size - at, null);
    if (count === 0) return null;
    at += count;
  }
  return bytes;
}

function readOrder(fd) {
  const length = readExactly(fd, 4);
  const text = length && readExactly(fd, length.readUInt32BE(0));
  return text && JSON.parse(text.toString('utf8'));
}

/** Takes on what the order says. */
function become({ argv, env, cwd, umask }, at) {
  process.argv.splice(1, Infinity, path.resolve(cwd, argv[at]), ...argv.slice(at + 1));
  for (const name of Object.keys(process.env)) {
    if (!(name in env)) delete process.env[name];
  }
  Object.assign(process.env, env);
  if (umask !== null) process.umask(umask);
  process.chdir(cwd);
}

/** Runs the script as node would have. */
function run(kind, main) {
  delete Module._cache[__filename];
  if (kind === 'esm') {
    Module.runMain(process.argv[1]);
    return;
  }
  main.load(main.filename);
}

/** The module that the script will be: what it requires knows it as `require.main` before it runs. */
function mainModule(entry) {
  const main = new Module(entry, null);
  main.id = NAMED_BY_FILE ? entry : '.';
  main.filename = entry;
  main.paths = Module._nodeModulePaths(path.dirname(entry));
  Module._cache[entry] = main;
  return main;
}

async function wait() {
  const plan = JSON.parse(process.argv[2]);
  // Another description of the same pipe: a module may make stdin non-blocking, and reading must wait all the same.
  const orders = fs.openSync('/proc/self/fd/0', 'r');
  tag = String(readExactly(orders, TAG_SIZE) ?? process.exit(0));
  if (plan.compileCache) Module.enableCompileCache?.(plan.compileCache);
  const entry = fs.realpathSync(plan.entry);
  const kind = kindOf(entry);
  const rehearsal = rehearsalOf(entry).filter((module) => !plan.skip.includes(module));
  const files = [...ownFiles(entry), ...rehearsal];
  const main = kind === 'cjs' ? mainModule(entry) : undefined;
  if (main) process.mainModule = main;
  else delete process.mainModule;

  const watch = new Watch(plan);
  const preload = new Preload(watch, plan.skip);
  if (main) preload.requires(main, entry);
  else await preload.imports(entry);
  for (const module of rehearsal) await rehearse(module, watch);
  watch.end();
  Module.flushCompileCache?.();

  say({ files });
  const order = readOrder(orders);
  fs.closeSync(orders);
  if (order === null) process.exit(0);
  become(order, plan.at);
  // Outside of this promise, so that what the script throws is an uncaught exception, as it would be.
  setImmediate(run, kind, main);
}

wait().catch((error) => {
  if (error instanceof Skip) say({ skip: error.key, reads: error.reads });
  else if (error instanceof Refused) say({ refused: error.message });
  else throw error;
  process.exit(0);
});
