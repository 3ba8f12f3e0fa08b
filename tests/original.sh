#!/bin/bash
# Has the original's own command line and SDK of March 2026, from a checkout of its repository and unchanged, use our server
# as people would, and compares what they print with what they printed then. Prints a line for each check.
#
# Needs the built program, Python 3 with venv, npm and node; bun, the clients' packages and one Python package are
# installed into a temporary folder. The clients' analytics are off.
#
#   tests/original.sh CHECKOUT [PROGRAM]     PROGRAM is target/debug/superserve if not given
set -euo pipefail
[ $# -ge 1 ] || { sed -n 's/^#   //p' "$0" >&2; exit 2; }
checkout=$(realpath "$1")
superserve=$(realpath "${2:-$(dirname "$0")/../target/debug/superserve}")
[ -d "$checkout/packages/cli/src" ] || { echo "$checkout holds no packages/cli/src" >&2; exit 2; }
[ -x "$superserve" ] || { echo "$superserve is no program: cargo build makes it" >&2; exit 2; }

work=$(mktemp -d)
mkdir "$work/tmp"
export TMPDIR="$work/tmp" SUPERSERVE_HOME="$work/server"
unset SUPERSERVE_API_URL SUPERSERVE_API_KEY
server=
finish() {
    if [ -n "$server" ]; then kill "$server" && wait "$server" || true; fi 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# The clients and what they need.

export npm_config_cache="$work/npm" npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false
export BUN_INSTALL_CACHE_DIR="$work/packages"
mkdir -p "$work/bun" "$work/bin" "$work/home" "$work/client"
echo "installing bun and the clients' packages" >&2
npm install --silent --prefix "$work/bun" bun >"$work/install.log" 2>&1 || { cat "$work/install.log" >&2; exit 1; }
bun=$work/bun/node_modules/.bin/bun

# without FILE FIELD…: takes fields that only the checkout's own workspace can answer out of a package.json.
without() {
    "$bun" -e 'const [file, ...fields] = process.argv.slice(1); const pkg = await Bun.file(file).json()
        for (const field of fields) delete pkg[field]
        await Bun.write(file, JSON.stringify(pkg))' "$@"
}
cp -r "$checkout/packages/cli" "$work/cli"
cp -r "$checkout/packages/sdk" "$work/sdk"
rm -rf "$work/cli/node_modules" "$work/sdk/node_modules"
without "$work/cli/package.json" devDependencies
without "$work/sdk/package.json" devDependencies peerDependencies peerDependenciesMeta
{ cd "$work/cli" && "$bun" install --production && cd "$work/sdk" && "$bun" add react@19 react-test-renderer@19; } \
    >"$work/install.log" 2>&1 || { cat "$work/install.log" >&2; exit 1; }
cd "$work"

# Where the device login would open a browser.
cat >"$work/bin/xdg-open" <<SH
#!/bin/sh
echo "\$1" >"$work/opened.part" && mv "$work/opened.part" "$work/opened"
SH
chmod +x "$work/bin/xdg-open"

# Runs one command of the client without the program around it, which takes --json away from its commands.
cat >"$work/command.ts" <<'TS'
const [name, ...args] = process.argv.slice(2)
const group = ["agents", "secrets", "sessions"].includes(name)
const module = await import(`./cli/src/commands/${group ? `${name}/index` : name}`)
await module[name].parseAsync(["bun", name, ...args])
TS

# on_pty.py WAIT=>SEND… -- COMMAND: on a terminal of its own, types each SEND once its WAIT has been printed.
cat >"$work/on_pty.py" <<'PY'
import os, pty, re, select, sys, time
split = sys.argv.index("--")
steps = [step.split("=>") for step in sys.argv[1:split]]
child, terminal = pty.fork()
if child == 0:
    os.execvp(sys.argv[split + 1], sys.argv[split + 1:])
seen, at, until = b"", 0, time.time() + 40
while time.time() < until:
    if select.select([terminal], [], [], 0.1)[0]:
        try:
            more = os.read(terminal, 65536)
        except OSError:
            break
        if not more:
            break
        seen += more
    if steps and steps[0][0].encode() in seen[at:]:
        time.sleep(0.2)
        at = len(seen)
        os.write(terminal, steps.pop(0)[1].encode().replace(b"^C", b"\x03").replace(b"^D", b"\x04").replace(b"$", b"\r"))
else:
    os.kill(child, 9)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode(errors="replace")).replace("\r\n", "\n")
text = re.sub(r"\r[\u2800-\u28ff][^\r\n]*", "", text).replace("\r", "")
print(re.sub(r"\n\n+", "\n", text).strip())
print(f"exit {code}")
PY

# Agents.

# agent FOLDER: its script is read from stdin.
agent() {
    mkdir -p "$work/agents/$1"
    cat >"$work/agents/$1/$2"
}
agent talker agent.py <<'PY'
import json, sys, time
def say(kind, **fields):
    sys.__stdout__.write(json.dumps({"type": kind, **fields}) + "\n")
    sys.__stdout__.flush()
say("ready")
turns = 0
for line in sys.stdin:
    turns += 1
    word = json.loads(line)["content"]
    if word == "tools":
        say("status", content="Looking")
        say("text", content="before ")
        say("tool_start", name="grep", input={"pattern": "x" * 60})
        say("tool_end", duration_ms=1234)
        say("tool_start", name="shell", input="ls")
        say("tool_end", duration_ms=5)
        say("text", content="after\n")
    elif word == "unicode":
        for part in ["Grüße ", "日本語 ", "👩‍👩‍👧 ", "\u2028 \x85 e\u0301"]:
            say("text", content=part)
    elif word == "big":
        for i in range(2000):
            say("text", content="%05d " % i + "y" * 994)
    elif word == "slow":
        for i in range(40):
            say("text", content=f"{i} ")
            time.sleep(0.1)
    elif word == "crash":
        say("text", content="about to")
        sys.exit(3)
    elif word != "silent":
        say("text", content=f"{turns}: {word}")
    say("turn_done")
PY
cat >"$work/agents/talker/superserve.yaml" <<'YAML'
name: talker
command: python3 agent.py
secrets:
  - KEY_OF_MINE
ignore:
  - private
YAML
mkdir "$work/agents/talker/private" "$work/agents/talker/dist"
echo x | tee "$work/agents/talker/private/a" "$work/agents/talker/dist/a" "$work/agents/talker/.env" "$work/agents/talker/kept" >/dev/null
agent plain agent.py <<'PY'
while True:
    print(f"You said: {input()}")
PY
agent script agent.js <<'JS'
require("readline").createInterface({ input: process.stdin }).on("line", line => console.log(`You said: ${line}`))
JS
agent web server.py <<'PY'
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps({"response": "You said: " + asked["prompt"]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
HTTPServer(("127.0.0.1", 8000), Answer).serve_forever()
PY
agent broken agent.py <<<'raise SystemExit(1)'
agent once agent.py <<<'print("one answer:", input())'
agent needy agent.py <<<'import six; print(input(), six.__name__)'
echo six >"$work/agents/needy/requirements.txt"
printf 'name: needy\ncommand: python3 agent.py\n' >"$work/agents/needy/superserve.yaml"
agent hopeless agent.py <<<'input()'
printf -- '--no-index\nno-such-package-at-all\n' >"$work/agents/hopeless/requirements.txt"
printf 'name: hopeless\ncommand: python3 agent.py\n' >"$work/agents/hopeless/superserve.yaml"
agent bare agent.py <<<'print("bare:", input())'
printf 'name: bare\ncommand: python3 agent.py\nsecrets:\nignore:\n' >"$work/agents/bare/superserve.yaml"

# Our server, and the clients at it.

ours() { HOME="$work/home" "$superserve" "$@"; }
HOME="$work/home" SUPERSERVE_SESSION_EXPIRE_AFTER=never "$superserve" serve --listen 127.0.0.1:0 2>"$work/log" &
server=$!
for _ in $(seq 100); do
    url=$(sed -n 's/.*listening on \(http:.*\)/\1/p' "$work/log")
    [ -n "$url" ] && break
    sleep 0.1
done
[ -n "$url" ] || { cat "$work/log" >&2; exit 1; }
token=$(ours tokens create ada 2>/dev/null | tail -1)

client_env=(HOME="$work/client" PATH="$work/bin:$PATH" SUPERSERVE_API_URL="$url//" SUPERSERVE_DO_NOT_TRACK=1 DO_NOT_TRACK=1 NO_COLOR=1)
passed=0
failed=0
# check NAME WANTED FOUND
check() {
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1))
        echo "ok      $1"
    else
        failed=$((failed + 1))
        echo "FAILED  $1"
        diff <(echo "$2") <(echo "$3") | sed 's/^/        /' || true
    fi
}
# What differs each time is made alike; of a line that a spinner drew over and over what stayed is kept.
alike() {
    sed -E -e 's/.*\r\x1b\[K//' -e 's/(in|\() ?[0-9.]+(ms|s|m)\)?/\1 TIME/g' -e 's/ses_[0-9a-f]{32}/SESSION/g' -e 's/agt_[0-9a-f]+/AGENT/g' \
        -e 's/run_[0-9a-f]{32}/RUN/g' -e '/^ *[┌└]/d' -e '/^ *├/d' -e 's/[[:space:]]+$//' -e '/^$/d'
}
# Both streams of the client as it is, then its exit code.
original() {
    local code=0
    env "${client_env[@]}" timeout -k 5 60 "$bun" "$work/cli/src/index.ts" "$@" </dev/null >"$work/out" 2>"$work/err" || code=$?
    { cat "$work/out" "$work/err"; printf '\nexit %s\n' "$code"; } | alike
}
# The same of a command alone; stdout only, and as it is.
alone() { env "${client_env[@]}" timeout -k 5 60 "$bun" "$work/command.ts" "$@" </dev/null 2>"$work/err" || true; }
typed() { env "${client_env[@]}" python3 "$work/on_pty.py" "$@" | sed -E 's/in [0-9.]+(ms|s)/in TIME/'; }
# piped TEXT ARGS…: the same of a client that reads this text from a pipe.
piped() {
    local code=0 text=$1
    shift
    printf '%s' "$text" | env "${client_env[@]}" timeout -k 5 60 "$bun" "$work/cli/src/index.ts" "$@" >"$work/out" 2>"$work/err" || code=$?
    { cat "$work/out" "$work/err"; printf '\nexit %s\n' "$code"; } | alike
}
deploy() { (cd "$work/agents/$1" && shift && original deploy -y "$@" | grep -E '^ *Deployed|✗|^Agent created|^exit'); }
session_of() { ours eval "list(#{ agent: \"$1\" })[0].id"; }
short() { cut -c5-16 <<<"$1"; }
lines() { printf '%s\n' "$@"; }

# Logins.

check 'without a login' \
    "$(lines '✗ Not authenticated. Run `superserve login` first.' '  Run `superserve login` to authenticate.' 'exit 1')" "$(original agents list)"
check 'login with a wrong key' "$(lines '✗ Invalid API key' 'exit 1')" "$(original login --api-key wrong)"
check 'login with a key' "$(lines '✓ Authenticated successfully with API key.' 'exit 0')" "$(original login --api-key "$token")"
check 'the login is kept as the original keeps it' "600 $token" \
    "$(stat -c %a "$work/client/.superserve/auth.json") $("$bun" -p "JSON.parse(await Bun.file('$work/client/.superserve/auth.json').text()).token")"
check 'logout' "$(lines '✓ Logged out successfully.' 'exit 0')" "$(original logout)"

# by_device WORD: a login by code, which the owner answers with this word; its last lines.
by_device() {
    rm -f "$work/opened"
    original login >"$work/login" &
    local login=$!
    for _ in $(seq 100); do [ -e "$work/opened" ] && break; sleep 0.1; done
    local code
    code=$(sed 's/.*code=//' "$work/opened")
    if [ "$1" = approve ]; then
        ours tokens approve "$code" 2>/dev/null
    else
        "$bun" -e 'const [unix, user_code] = process.argv.slice(1)
            await fetch("http://localhost/v1/auth/device-approve", { unix, method: "POST",
                headers: { "Content-Type": "application/json" }, body: JSON.stringify({ user_code, deny: true }) })' \
            "$SUPERSERVE_HOME/run/server.sock" "$code"
    fi
    wait "$login"
    tail -n +5 "$work/login"
}
check 'login by code, denied' "$(lines '✗ Access denied by user' "  You don't have permission for this action." 'exit 1')" "$(by_device deny)"
check 'login by code, approved' "$(lines '✓ Authenticated successfully!' 'exit 0')" "$(by_device approve)"
check 'nothing is there yet' 'No agents found. Deploy one with:' "$(original agents list | head -1)"
original login --api-key "$token" >/dev/null

# Agents.

check 'deploy by superserve.yaml' "$(lines "  Deployed 'talker' in TIME" 'exit 0')" "$(deploy talker)"
check 'deploy it again, asked' "$(lines "Agent 'talker' already exists. Redeploy? (y/N) Cancelled" 'exit 0')" \
    "$(cd "$work/agents/talker" && piped $'n\n' deploy)"
check 'deploy a Python script' "$(lines "  Deployed 'plain' in TIME" 'exit 0')" "$(deploy plain agent.py)"
check 'deploy a JavaScript script' "$(lines "  Deployed 'script' in TIME" 'exit 0')" "$(deploy script agent.js)"
check 'deploy an HTTP agent under a name' "$(lines "  Deployed 'site' in TIME" 'exit 0')" "$(deploy web server.py --port 8000 -n site)"
check 'deploy a script that fails' "$(lines "  Deployed 'broken' in TIME" 'exit 0')" "$(deploy broken agent.py)"
check 'deploy a script that ends' "$(lines "  Deployed 'once' in TIME" 'exit 0')" "$(deploy once agent.py)"
check 'deploy waits for dependencies' "$(lines "  Deployed 'needy' in TIME" 'exit 0')" "$(deploy needy)"
check 'deploy with dependencies that are nowhere' "$(lines '  ✗ Installing dependencies...' 'Agent created but dependency install failed.' 'exit 1')" "$(deploy hopeless)"
check 'deploy prints the agent as JSON' 'talker python3 agent.py ["KEY_OF_MINE"] none null' \
    "$(cd "$work/agents/talker" && alone deploy --json | "$bun" -e 'const a = await Bun.stdin.json()
        console.log(a.name, a.command, JSON.stringify(a.required_secrets), a.deps_status, a.deps_error)')"
check 'agents list' "$(lines broken hopeless needy once plain script site talker)" \
    "$(original agents list | sed -n 's/^│ \([a-z]*\) .*/\1/p' | sort)"
check 'agents list --status failed' hopeless "$(original agents list --status failed | sed -n 's/^│ \([a-z]*\) .*/\1/p')"
check 'agents get' "$(lines '│ Name       │ talker' '│ Status     │ READY' '│ Command    │ python3 agent.py')" \
    "$(original agents get talker | grep -E 'Name|Status|Command' | sed -E 's/ +│$//')"
check 'agents get, unknown' "$(lines "✗ Agent 'nobody' not found" '  Run `superserve agents list` to see your agents.' 'exit 1')" \
    "$(original agents get nobody)"
check 'agents get, unknown ID' "$(lines "✗ Agent not found: no agent is called 'agt_nobody'" 'exit 1')" \
    "$(original agents get agt_nobody | grep -v '^  ')"

# Secrets.

check 'run without a required secret' "$(lines '✗ Missing required secret(s): KEY_OF_MINE' 'exit 1')" \
    "$(original run talker hi | grep -E '✗|exit')"
check 'secrets set' "$(lines 'Current secrets: A KEY/%, KEY_OF_MINE' "✓ Set 2 secret(s) for agent 'talker'" 'exit 0')" \
    "$(original secrets set talker KEY_OF_MINE=a=b 'A KEY/%=x' | grep -v Playground)"
check 'secrets list' "$(lines '│ A KEY/%     │' '│ KEY_OF_MINE │')" "$(original secrets list talker | grep KEY)"
check 'secrets delete' "$(lines 'Remaining secrets: KEY_OF_MINE' "✓ Deleted secret 'A KEY/%' from agent 'talker'" 'exit 0')" \
    "$(original secrets delete talker 'A KEY/%' -y)"

# Runs.

check 'run' "$(lines 'Agent> 1: hi' '✓ Completed in TIME' 'exit 0')" "$(original run talker hi)"
check 'run a Python script' "$(lines 'Agent> You said: hällo' '✓ Completed in TIME' 'exit 0')" "$(original run plain hällo)"
check 'run a JavaScript script' "$(lines 'Agent> You said: hällo' '✓ Completed in TIME' 'exit 0')" "$(original run script hällo)"
check 'run an HTTP agent' "$(lines 'Agent> You said: hällo' '✓ Completed in TIME' 'exit 0')" "$(original run site hällo --single)"
check 'run an agent with dependencies' "$(lines 'Agent> hi six' '✓ Completed in TIME' 'exit 0')" "$(original run needy hi)"
check 'run an agent without its dependencies' "$(lines '✗ Dependency install failed. Redeploy to try again.' 'exit 1')" \
    "$(original run hopeless hi | grep -E '✗|exit')"
check 'run tools' "$(lines 'Agent> before' 'after' "[grep] {\"pattern\":\"$(printf 'x%.0s' {1..38})... ( TIME" '[shell] ls ( TIME' '✓ Completed in TIME' 'exit 0')" \
    "$(original run talker tools)"
check 'run says nothing' "$(lines '✓ Completed in TIME' 'exit 0')" "$(original run talker silent)"
check 'run in many letters' $'Agent> Grüße 日本語 👩‍👩‍👧 \u2028 \u0085 e\u0301' "$(original run talker unicode | head -1)"
original run talker big >/dev/null
check 'run with two megabytes' 2000008 "$(wc -c <"$work/out")"
check 'run that fails in its turn' "$(lines 'Agent> about to✗ The agent exited with code 3' 'exit 1')" "$(original run talker crash)"
check 'run that fails before its turn' 'exit 1' "$(original run broken hi | tail -1)"
check 'run of an agent that nobody knows' "$(lines "✗ Agent 'nobody' not found" 'exit 1')" "$(original run nobody hi | grep -v '^  ')"
check 'run with a prompt from a pipe' "$(lines 'Agent> 1: piped' 'You> ✓ Completed in TIME' 'exit 0')" "$(piped $'piped\n' run talker)"
check 'run prints events as JSON' "$(lines run.started status message.delta tool.start tool.end tool.start tool.end message.delta run.completed)" \
    "$(alone run talker tools --json | sed -n 's/^{"type":"\([^"]*\)".*/\1/p')"
check 'run on a terminal' "$(lines 'Agent> 1: first' '✓ Completed in TIME' 'You> second' 'Agent> 2: second' '✓ Completed in TIME' 'You> exit' 'exit 0')" \
    "$(typed 'You> =>second$' 'You> =>exit$' -- "$bun" "$work/cli/src/index.ts" run talker first)"
check 'Ctrl-C in a run, twice' "$(lines 'Cancelled.' 'exit -2')" \
    "$(typed '3 =>^C' '8 =>^C' -- "$bun" "$work/cli/src/index.ts" run talker slow | grep -E 'Cancelled|exit')"
session=$(session_of talker)
check 'a message meanwhile' "$(lines '✗ Session is busy' 'exit 1')" "$(original sessions resume "$session" | sed 's/\(is busy\).*/\1/')"
check 'nobody reads the run, and it goes on to its end' idle \
    "$(ours sessions wait "$session" --until idle --timeout 30s >/dev/null 2>&1; ours eval "get(\"$session\").status")"

# Sessions.

check 'sessions list' "│ $(short "$session") │ slow │ IDLE │ 1 │ Just now │" "$(original sessions list --agent talker | sed -n 2p | tr -s ' ')"
check 'sessions list --status ERROR' "$(lines broken talker)" "$(original sessions list --status ERROR | sed -n 's/^│ [0-9a-f]* │ \([a-z]*\) .*/\1/p' | sort)"
check 'sessions list, unknown status' "$(lines "✗ unknown status 'odd'" 'exit 1')" "$(original sessions list --status odd | grep -v '^  ' | sed 's/: use.*//')"
check 'sessions list as JSON' "$session idle slow 1 talker" \
    "$(alone sessions list --json --agent talker | "$bun" -e 'const [s] = await Bun.stdin.json()
        console.log(s.id, s.status, s.title, s.message_count, s.agent_name)')"
hex=${session#ses_}
# Whole, without its beginning, as lists show it, with its beginning, and as a UUID.
for id in "$session" "$hex" "$(short "$session")" "ses_${hex:0:12}" "${hex:0:8}-${hex:8:4}-${hex:12:4}-${hex:16:4}-${hex:20}"; do
    check "sessions get by ${#id} letters" "$session" "$(alone sessions get "$id" --json | sed -n 's/^  "id": "\(.*\)",/\1/p')"
done
check 'sessions get, unknown' "$(lines "✗ No session found matching 'zzz'" 'exit 1')" "$(original sessions get zzz | grep -v '^  ')"
check 'sessions get, unknown and whole' "$(lines "✗ Session not found: no session matches 'SESSION'" 'exit 1')" \
    "$(original sessions get 00000000000000000000000000000000 | grep -v '^  ')"
check 'sessions resume' "$(lines 'Agent> 2: again' 'Resumed: "slow" (talker)' 'You> ✓ Completed in TIME' 'You>' 'exit 0')" \
    "$(piped $'again\n' sessions resume "$(short "$session")")"
check 'sessions resume of one that completed' "$(lines 'Agent> one answer: b' 'exit 0')" \
    "$(original run once a >/dev/null; piped $'b\n' sessions resume "$(session_of once)" | grep -E 'Agent|exit')"
check 'sessions resume of one that failed' "$(lines 'Resumed: "hi" (broken)' 'exit 0')" \
    "$(piped $'exit\n' sessions resume "$(session_of broken)" | grep -E 'Resumed|exit')"
check 'sessions end' "$(lines "✓ Session $(short "$session") ended (status: ENDED)" 'exit 0')" "$(original sessions end "$(short "$session")")"
check 'sessions end, again' "$(lines "✓ Session $(short "$session") ended (status: ENDED)" 'exit 0')" "$(original sessions end "$(short "$session")")"
check 'sessions resume of one that has ended' "$(lines '✗ Session has ended and cannot be resumed' 'exit 1')" "$(original sessions resume "$session")"
original run talker files >/dev/null
check 'what arrived of the folder' "$(lines agent.py kept superserve.yaml)" \
    "$(ours sessions files "$(session_of talker)" ls | awk 'NR > 1 { print $NF }' | sort)"

# The SDK.

cat >"$work/sdk/drive.ts" <<'TS'
import Superserve, { APIError } from "./src/index"
const [apiKey, baseUrl] = process.argv.slice(2)
const client = new Superserve({ apiKey, baseUrl })
const told = (result: object) => JSON.stringify(result, (key, value) => (key === "duration" && value > 5 && value !== 1234 ? "TIME" : value))
const say = (...words: unknown[]) => console.log(words.map(w => (typeof w === "string" ? w : told(w as object))).join(" "))
const refused = async (what: string, call: () => Promise<unknown>) => {
    try {
        say(what, "went well", (await call()) ?? {})
    } catch (error) {
        if (error instanceof APIError) say(what, String(error.status), String(error.details.code))
        else say(what, (error as Error).name)
    }
}
say("list", (await client.agents.list()).map(agent => agent.name).sort())
const agent = await client.agents.get("talker")
say("get", { ...agent, id: agent.id.slice(0, 4), createdAt: typeof agent.createdAt, updatedAt: typeof agent.updatedAt })
say("run", await client.run(agent.id, { message: "tools" }))
say("failed", await client.run("talker", { message: "crash" }).then(({ duration, ...result }) => result))
const heard: string[] = []
const stream = client.stream("talker", {
    message: "tools",
    onText: text => heard.push(text.trim()),
    onToolStart: tool => heard.push(tool.name),
    onToolEnd: tool => heard.push(String(tool.duration)),
    onFinish: result => heard.push(result.finishReason),
})
const types: string[] = []
for await (const event of stream) types.push(event.type)
say("stream", types, heard)
let big = 0
for await (const text of client.stream("talker", { message: "big" }).textStream) big += text.length
say("text", big)
const session = await client.createSession("talker", { title: "Ein Gespräch", idleTimeout: 60 })
say("session", session.info.status, session.info.title!, session.info.messageCount, session.info.agentName!, session.id.length)
say("turns", (await session.run("a")).text, (await session.stream("b").result).text, (await client.run("", { message: "c", sessionId: session.id })).text)
const slow = session.stream("slow")
let seen = 0
try {
    for await (const _ of slow) if (++seen === 3) slow.abort()
    say("abort went well")
} catch (error) {
    say("abort", seen, (error as Error).name)
}
slow.result.catch(() => {})
await refused("busy", () => session.run("d"))
await refused("end", () => session.end())
await refused("end again", () => session.end())
await refused("ended", () => session.run("e"))
await refused("empty", () => client.run("talker", { message: "" }))
await refused("unknown agent", () => client.run("agt_nobody", { message: "x" }))
await refused("unknown session", () => client.run("", { message: "x", sessionId: `ses_${"0".repeat(32)}` }))
await refused("wrong token", () => new Superserve({ apiKey: "wrong", baseUrl }).agents.list())
const many = await Promise.all(Array.from({ length: 8 }, (_, i) => client.run("talker", { message: `m${i}` })))
say("at once", many.map(result => result.text))
TS
tool="{\"name\":\"grep\",\"input\":{\"pattern\":\"$(printf 'x%.0s' {1..60})\"},\"duration\":1234},{\"name\":\"shell\",\"input\":\"ls\",\"duration\":5}"
wanted=$(cat <<TEXT
list ["broken","hopeless","needy","once","plain","script","site","talker"]
get {"id":"agt_","name":"talker","command":"python3 agent.py","depsStatus":"none","depsError":null,"requiredSecrets":["KEY_OF_MINE"],"environmentKeys":["KEY_OF_MINE"],"createdAt":"string","updatedAt":"string"}
run {"text":"before after\\n","toolCalls":[$tool],"finishReason":"completed","duration":"TIME","maxTurnsReached":false}
failed {"text":"about to","toolCalls":[],"finishReason":"failed","maxTurnsReached":false}
stream ["text","tool-start","tool-end","tool-start","tool-end","text","run-completed"] ["before","grep","1234","shell","5","after","completed"]
text 2000000
session pending Ein Gespräch 0 talker 36
turns 1: a 2: b 3: c
abort 3 AbortError
busy 409 busy
end went well {}
end again went well {}
ended 409 ended
empty 422 invalid
unknown agent 404 not_found
unknown session 404 not_found
wrong token 401 unauthenticated
at once ["1: m0","1: m1","1: m2","1: m3","1: m4","1: m5","1: m6","1: m7"]
TEXT
)
found=$(env "${client_env[@]}" timeout -k 5 120 "$bun" "$work/sdk/drive.ts" "$token" "$url//" 2>&1 || true)
while IFS= read -r line; do
    name=${line%% [\[\{0-9]*}
    check "SDK: ${name:0:30}" "$line" "$(grep -F -x -- "$line" <<<"$found" || grep -- "^${line%% *} " <<<"$found" || true)"
done <<<"$wanted"
check 'SDK: nothing else' "$(wc -l <<<"$wanted")" "$(wc -l <<<"$found")"

cat >"$work/sdk/hook.tsx" <<'TSX'
import { act, create } from "react-test-renderer"
import { SuperserveProvider, useAgent } from "./src/react/index"
Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
const [apiKey, baseUrl] = process.argv.slice(2)
let chat: ReturnType<typeof useAgent>
function Chat() {
    chat = useAgent({ agent: "talker" })
    return null
}
await act(async () => void create(<SuperserveProvider apiKey={apiKey} baseUrl={baseUrl}><Chat /></SuperserveProvider>))
const send = async (text: string) => {
    await act(async () => chat.sendMessage(text))
    for (let i = 0; i < 400 && chat.status === "streaming"; i++) await act(() => Bun.sleep(25))
    console.log(chat.status, chat.error?.message ?? "-", JSON.stringify(chat.messages.map(m => [m.role, m.content.trim(), m.toolCalls?.length ?? 0])))
}
await send("one")
await send("tools")
await act(async () => chat.reset())
await send("two")
await send("crash")
process.exit(0)
TSX
wanted=$(cat <<'TEXT'
ready - [["user","one",0],["assistant","1: one",0]]
ready - [["user","one",0],["assistant","1: one",0],["user","tools",0],["assistant","before after",2]]
ready - [["user","two",0],["assistant","1: two",0]]
TEXT
)
found=$(env "${client_env[@]}" timeout -k 5 60 "$bun" "$work/sdk/hook.tsx" "$token" "$url" 2>"$work/err" || true)
check 'SDK: the hook' "$wanted" "$(head -3 <<<"$found")"
check 'SDK: the hook of an agent that fails' 'error The agent exited with code 3' "$(sed -n '4s/ \[.*//p' <<<"$found")"

# The end.

check 'deploy with empty lists in superserve.yaml' "$(lines "  Deployed 'bare' in TIME" 'exit 0')" "$(deploy bare)"
check 'run it' 'Agent> bare: hi' "$(original run bare hi | head -1)"
session=$(session_of talker)
check 'agents delete' "$(lines "✓ Deleted agent 'talker'" 'exit 0')" "$(original agents delete talker -y)"
check 'its sessions have ended' '│ Status │ ENDED │' "$(original sessions get "$session" | grep Status | tr -s ' ')"
check 'a token that was revoked' "$(lines '✗ The token is not valid' '  Run `superserve login` to authenticate.' 'exit 1')" \
    "$(ours tokens revoke ada -y >/dev/null 2>&1; original agents list | sed 's/\(is not valid\).*/\1/')"
kill "$server"
wait "$server" || true
server=
check 'no server' "$(lines '✗ Cannot connect to Superserve API' 'exit 1')" "$(original agents list)"
check 'no error in the log' '' "$(grep -E ' (ERROR|panicked)' "$work/log" || true)"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
