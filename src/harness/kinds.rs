//! Many kinds of agents, none of which knows of us: no turn of theirs ends early, and nothing is lost.

use futures_util::future::join_all;

use super::stage::*;
use super::*;

const SH: &[&str] = &["sh", "-c"];
const PYTHON: &[&str] = &["/usr/bin/python3", "-c"];
const NODE: &[&str] = &["/usr/bin/node", "-e"];

/// Agents that answer a message of numbers by sleeping so many seconds before each line `got NUMBER`, then add a
/// byte to the truth. Without numbers they say nothing.
pub(super) const KINDS: &[(&str, &[&str], &str)] = &[
    (
        "sh loop",
        SH,
        r#"while read -r line; do for s in $line; do sleep $s; echo "got $s"; done; printf x >> $TRUTH; done"#,
    ),
    (
        "sh pipeline",
        SH,
        r#"cat | while read -r line; do for s in $line; do sleep $s; echo "got $s"; done; printf x >> $TRUTH; done"#,
    ),
    (
        "sh prompt",
        SH,
        r#"echo Welcome; while printf 'You: '; read -r line; do for s in $line; do sleep $s; echo "got $s"; done
           printf x >> $TRUTH; done"#,
    ),
    (
        "sh that signals",
        SH,
        r#"while read -r line; do for s in $line; do sleep $s; echo "got $s"; done; printf x >> $TRUTH
           echo turn_done > $SUPERSERVE_TURN; done"#,
    ),
    (
        "python input",
        PYTHON,
        r#"
import os, time
while True:
    line = input('You: ')
    for s in line.split():
        time.sleep(float(s)); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python for line",
        PYTHON,
        r#"
import os, sys, time
for line in sys.stdin:
    for s in line.split():
        time.sleep(float(s)); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python children",
        PYTHON,
        r#"
import os, sys, subprocess
for line in sys.stdin:
    for s in line.split():
        subprocess.run(['sh', '-c', 'sleep ' + s + '; echo got ' + s])
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python reader thread",
        PYTHON,
        r#"
import os, sys, time, threading, queue
lines = queue.Queue()
def read():
    for line in sys.stdin: lines.put(line)
threading.Thread(target=read, daemon=True).start()
while True:
    for s in lines.get().split():
        time.sleep(float(s)); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python pool",
        PYTHON,
        r#"
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(4)
for line in sys.stdin:
    for s in line.split():
        pool.submit(time.sleep, float(s)).result(); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python background thread",
        PYTHON,
        r#"
import os, time, threading
def beat():
    while True: time.sleep(0.02)
threading.Thread(target=beat, daemon=True).start()
while True:
    for s in input().split():
        time.sleep(float(s)); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python select",
        PYTHON,
        r#"
import os, select, time
wait = select.poll(); wait.register(0, select.POLLIN)
turn = 0
while True:
    turn += 1
    if turn % 2: wait.poll()
    else: select.select([0], [], [])
    for s in os.read(0, 65536).decode().split():
        time.sleep(float(s)); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "asyncio reader",
        PYTHON,
        r#"
import asyncio, os, sys
async def main():
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        for s in line.decode().split():
            await asyncio.sleep(float(s)); print('got', s)
        open(os.environ['TRUTH'], 'a').write('x')
asyncio.run(main())
"#,
    ),
    (
        "asyncio executor",
        PYTHON,
        r#"
import asyncio, os, sys
async def main():
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        for s in line.split():
            await asyncio.sleep(float(s)); print('got', s)
        open(os.environ['TRUTH'], 'a').write('x')
asyncio.run(main())
"#,
    ),
    (
        "node line event",
        NODE,
        r#"
const rl = require('readline').createInterface({ input: process.stdin });
rl.on('line', async (line) => {
    for (const s of line.split(' ').filter(Boolean)) {
        await new Promise((done) => setTimeout(done, s * 1000));
        console.log('got', s);
    }
    require('fs').appendFileSync(process.env.TRUTH, 'x');
});
"#,
    ),
    (
        "node for await",
        NODE,
        r#"
const rl = require('readline').createInterface({ input: process.stdin });
(async () => {
    for await (const line of rl) {
        for (const s of line.split(' ').filter(Boolean)) {
            await new Promise((done) => setTimeout(done, s * 1000));
            console.log('got', s);
        }
        require('fs').appendFileSync(process.env.TRUTH, 'x');
    }
})();
"#,
    ),
];

/// A row of numbers that follows from its seed (an LCG).
struct Row(u64);

impl Row {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// Up to three sleeps: mostly short, some long; one turn in ten has none.
    fn sleeps(&mut self) -> Vec<String> {
        if self.below(10) == 0 {
            return Vec::new();
        }
        let sleep = |row: &mut Self| if row.below(4) > 0 { row.below(50) } else { 100 + row.below(200) };
        (0..=self.below(3)).map(|_| format!("0.{:03}", sleep(self))).collect()
    }
}

async fn many_turns(seed: u64, name: &str, argv: &[&str], code: &str) {
    if argv[0].starts_with("/usr/bin/") && !installed(argv[0].trim_start_matches("/usr/bin/")) {
        return;
    }
    let place = Place::new();
    let mut conversation = place.open(&[argv, &[code]].concat()).await;
    let mut row = Row(seed);
    for number in 1..=30 {
        let sleeps = row.sleeps();
        let expected: Vec<String> = sleeps.iter().map(|sleep| format!("got {sleep}")).collect();
        let (end, text) = say(&mut conversation, &sleeps.join(" "), number).await;
        assert_eq!(end, TurnEnd::Done, "{name}, turn {number}: {}", conversation.stderr_tail());
        assert_eq!(place.done() as u64, number, "{name}, turn {number} was over early: {text:?}");
        assert_eq!(text, expected.join("\n"), "{name}, turn {number}");
    }
    conversation.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_turn_ends_early_and_nothing_is_lost() {
    let kinds =
        (1..).zip(KINDS).map(|(seed, (name, argv, code))| tokio::spawn(many_turns(seed, name, argv, code)));
    for done in join_all(kinds).await {
        done.unwrap();
    }
}
