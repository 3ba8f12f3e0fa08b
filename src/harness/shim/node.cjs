// Tells superserve when this process waits for its next message on stdin, and gives readline its new lines back.
//
// Node runs this before the agent's own code. Whatever fails in here must not show: the agent runs as it would
// without it, and the kernel tells superserve what this would have told.
'use strict';

(() => {
  try {
    const turn = process.env.SUPERSERVE_TURN;
    if (!turn || !require('worker_threads').isMainThread) return;
    const { fstatSync, openSync, writeSync, closeSync, constants } = require('fs');
    const status = fstatSync(0);
    if (!status.isFIFO()) return;
    // The agent may put others in their places.
    const { setTimeout, setImmediate, clearTimeout, clearImmediate } = globalThis;
    const resources = process.getActiveResourcesInfo?.bind(process);

    const now = performance.now.bind(performance);
    const tell = (type) => {
      // Not kept open: a descriptor of ours would be one more thing that an agent could close.
      try {
        const fd = openSync(turn, constants.O_WRONLY | constants.O_NONBLOCK);
        try {
          writeSync(fd, JSON.stringify({ type, pid: process.pid, stdin: status.ino }) + '\n');
        } finally {
          closeSync(fd);
        }
      } catch {}
    };

    const stdio = new Set();
    const count = () => {
      const counts = new Map();
      for (const kind of resources()) counts.set(kind, (counts.get(kind) ?? 0) + 1);
      // Stdout's pipe is there from the first word on, and is no work.
      const pipes = [...stdio].filter((stream) => stream._handle?.constructor.name === 'Pipe' && stream._handle.hasRef());
      if (pipes.length > 0) counts.set('PipeWrap', (counts.get('PipeWrap') ?? 0) - pipes.length);
      return counts;
    };

    // How often it is looked again after something woke the process.
    const TRIES = 5;
    /** @type {Map<string, number> | null} What keeps the agent alive while it only waits for a message. */
    let baseline = null;
    let busy = false;
    let whole = true;
    let delay = 1;
    let waited = 0;
    let tries = 0;
    let due = Infinity;
    let timer = null;
    let immediate = null;

    const learn = () => {
      // The message before this one is done with, or this one would not have come.
      const now = count();
      if (baseline === null) {
        baseline = now;
        return;
      }
      for (const kind of new Set([...baseline.keys(), ...now.keys()])) {
        const [before, after] = [baseline.get(kind) ?? 0, now.get(kind) ?? 0];
        // A timer may be one that the last message left behind; a connection that is open is kept open.
        const passing = kind === 'Timeout' || kind === 'Immediate';
        baseline.set(kind, passing ? Math.min(before, after) : Math.max(before, after));
      }
    };

    const rests = () => {
      for (const [kind, number] of count()) {
        if (number > (baseline.get(kind) ?? 0)) return false;
      }
      return true;
    };

    const look = () => {
      try {
        if (busy && rests()) {
          busy = false;
          clearTimeout(timer);
          clearImmediate(immediate);
          timer = immediate = null;
          tell('idle');
        }
      } catch {}
      arm();
    };

    // After whatever woke the process, and a few times more: what it closes is gone a little later, and what a timer
    // of the agent's did shows only when something wakes the process again. Nothing of this keeps it alive.
    const arm = () => {
      if (!busy) return;
      immediate ??= setImmediate(() => {
        immediate = null;
        // Woken by something else than the timer below.
        if (now() < due) tries = 0;
        look();
      }).unref();
      if (timer !== null || (tries >= TRIES && !resources().includes('Timeout'))) return;
      due = now() + delay - 1;
      timer = setTimeout(() => {
        timer = null;
        due = Infinity;
        tries += 1;
        waited += delay;
        delay = Math.min(delay * 1.25, waited < 2000 ? 5 : 20);
        look();
      }, delay).unref();
    };

    const received = (chunk) => {
      try {
        if (whole) learn();
        whole = chunk.at(-1) === 10 || chunk.at(-1) === '\n';
        delay = 1;
        waited = tries = 0;
        if (!busy) {
          busy = true;
          tell('busy');
        }
        arm();
      } catch {}
    };

    // Before the first message: an agent that reads, and has nothing under way but timers, waits.
    const quiet = new Set(['PipeWrap', 'TTYWrap', 'Timeout', 'TCPServerWrap', 'PipeServerWrap', 'SignalWrap']);
    const begin = (stream, after) => {
      setTimeout(() => {
        try {
          if (baseline !== null) return;
          const reads = stream.readableFlowing || stream.listenerCount('readable') > 0;
          if (reads && resources().every((kind) => quiet.has(kind))) tell('idle');
          else begin(stream, Math.min(after * 2, 50));
        } catch {}
      }, after).unref();
    };

    let stdin = null;
    const found = (stream) => {
      if (stdin === stream) return;
      stdin = stream;
      if (resources === undefined) return;
      const push = stream.push;
      Object.defineProperty(stream, 'push', {
        configurable: true,
        writable: true,
        value(chunk, encoding) {
          if (chunk?.length > 0) received(chunk);
          return push.call(this, chunk, encoding);
        },
      });
      begin(stream, 1);
    };

    for (const name of ['stdin', 'stdout', 'stderr']) {
      const property = Object.getOwnPropertyDescriptor(process, name);
      if (property?.get === undefined) continue;
      Object.defineProperty(process, name, {
        ...property,
        get() {
          const stream = property.get.call(process);
          try {
            stdio.add(stream);
            if (name === 'stdin') found(stream);
          } catch {}
          return stream;
        },
      });
    }

    const MEANING = { n: '\n', r: '\r', s: '\u2028', p: '\u2029', u: '\x1f' };
    const decode = (line) =>
      typeof line === 'string' ? line.replace(/\x1f([nrspu])/g, (_, letter) => MEANING[letter]) : line;

    // Every interface of readline sets its prompt while it is made, the promises' as well.
    let prototype = require('readline').Interface.prototype;
    while (prototype && !Object.hasOwn(prototype, 'setPrompt')) prototype = Object.getPrototypeOf(prototype);
    const setPrompt = prototype?.setPrompt;
    if (setPrompt === undefined) return;
    const seen = new WeakSet();
    const decodes = (reader) => {
      seen.add(reader);
      const names = ['_onLine'];
      for (let at = reader; at; at = Object.getPrototypeOf(at)) {
        names.push(...Object.getOwnPropertySymbols(at).filter((symbol) => symbol.description === '_onLine'));
      }
      // The one may call the other: both are taken before either is replaced.
      const originals = [...new Set(names)].map((name) => [name, reader[name]]);
      for (const [name, onLine] of originals) {
        if (typeof onLine !== 'function') continue;
        Object.defineProperty(reader, name, {
          configurable: true,
          writable: true,
          value(line) {
            return onLine.call(this, decode(line));
          },
        });
      }
      tell('decodes');
    };
    Object.defineProperty(prototype, 'setPrompt', {
      configurable: true,
      writable: true,
      value(prompt) {
        try {
          if (stdin !== null && this.input === stdin && !seen.has(this)) decodes(this);
        } catch {}
        return setPrompt.call(this, prompt);
      },
    });
  } catch {}
})();
