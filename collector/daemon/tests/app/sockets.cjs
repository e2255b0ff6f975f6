// What a dashboard's sockets hear, by socket.io-client.
//
// From the environment: what client.cjs needs; OTLP, where traces go; OTHER and OTHER_OTLP: another emberd on the same database, if any.
'use strict';
const assert = require('node:assert/strict');
const { randomBytes, randomUUID } = require('node:crypto');
const { io } = require('socket.io-client');
const WebSocket = require('ws');
const { person, session, bridge, ok, tell, sleep } = require('./client.cjs');

const { API, OTLP, OTHER, OTHER_OTLP } = process.env;
const ADA = person('Ada');
const BOB = person('Bob');

// A socket that notes what it hears; `auth` may be a function, as socket.io-client takes it.
async function connected(auth, { url = API, ...options } = {}) {
  const socket = io(url, { auth, transports: ['websocket'], forceNew: true, reconnection: false, ...options });
  const heard = [];
  socket.onAny((event, body) => heard.push({ event, ...body }));
  await new Promise((done, failed) => socket.on('connect', done).on('connect_error', failed));
  return { socket, heard, of: (event) => heard.filter((one) => one.event === event) };
}

async function refused(auth, options) {
  const outcome = await connected(auth, options).then(({ socket }) => socket.close() && 'let in', (error) => error.message);
  assert.notEqual(outcome, 'let in');
  return outcome;
}

async function until(what, ask, ms = 20_000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = ask();
    if (found) return found;
    assert.ok(Date.now() < end, `waited in vain for ${what}`);
    await sleep(10);
  }
}

const attribute = (key, value) => ({ key, value: typeof value === 'number' ? { intValue: value } : { stringValue: value } });

// Sends traces of one call each; gives their ids.
async function traced(prompt, { count = 1, otlp = OTLP, model = 'gpt-4o' } = {}) {
  const ids = Array.from({ length: count }, () => randomBytes(16).toString('hex'));
  const now = BigInt(Date.now()) * 1_000_000n;
  const spans = ids.map((traceId) => ({
    traceId, spanId: randomBytes(8).toString('hex'), name: 'chat',
    startTimeUnixNano: String(now - 250_000_000n), endTimeUnixNano: String(now),
    attributes: [
      attribute('openinference.span.kind', 'LLM'), attribute('prompt.id', prompt), attribute('llm.model_name', model),
      attribute('llm.token_count.prompt', 12), attribute('llm.token_count.completion', 5),
    ],
  }));
  const body = JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans }] }] });
  const answer = await fetch(otlp, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
  assert.equal(answer.status, 200, await answer.text());
  return ids;
}

const prompted = async (title) => (await ok('POST', '/api/prompts', session(ADA), { title: `${title} ${randomUUID()}`, content: 'Hi.' }, 201)).id;

async function evaluated(prompt, api = '') {
  const data = [1, 2, 3, 4].map((n) => ({ input: `${n}?`, output: `${n}`, reference: `${n}` }));
  const dataset = await ok('POST', '/api/datasets', session(ADA), { name: 'mine', type: 'custom', data }, 201);
  const config = { model: 'recorded', evaluators: ['exact_match'] };
  return ok('POST', `${api}/api/evaluations`, session(ADA), { promptId: prompt, datasetId: dataset.id, name: 'told', config }, 201);
}

const ids = (heard) => heard.map((one) => one.traceId);

const stories = {
  async 'nobody hears anything without a token that counts'() {
    assert.equal(await refused(undefined), 'unauthorized');
    assert.equal(await refused({ token: 'x' }), 'unauthorized');
    assert.equal(await refused({ token: session(ADA, { expiresIn: '-1m' }) }), 'unauthorized');
    assert.equal(await refused({ token: session(ADA, { audience: 'other' }) }), 'unauthorized');
    await refused({}, { query: { token: session(ADA) } });
    await refused({ token: session(ADA) }, { query: { token: session(ADA) } });
    await refused({ token: session(ADA) }, { extraHeaders: { origin: 'https://evil.example' } });
    await refused({ token: session(ADA) }, { transports: ['polling'] });
    for (const token of [session(ADA), bridge(ADA)]) {
      (await connected({ token })).socket.close();
    }
  },

  async 'an evaluation tells how it goes on, and a trace that it is complete'() {
    const { socket, of } = await connected({ token: session(BOB) });
    const prompt = await prompted('told');
    const evaluation = await evaluated(prompt);
    const last = await until('the end', () => of('evaluation:update').find((one) => one.status === 'completed'));
    assert.deepEqual([last.evaluationId, last.promptId], [evaluation.id, prompt]);
    assert.deepEqual([last.progress.done, last.progress.failed, last.progress.total], [4, 0, 4]);
    assert.equal(last.metrics.evaluators.exact_match.mean, 1);
    const [id] = await traced(prompt);
    const trace = await until('the trace', () => of('trace:complete').find((one) => one.traceId === id));
    const { promptId, sessionId, status, executionTimeMs, model, tokens, cost } = trace;
    assert.deepEqual({ promptId, sessionId, status, executionTimeMs, model, tokens }, {
      promptId: prompt, sessionId: null, status: 'success', executionTimeMs: 250, model: 'gpt-4o', tokens: { prompt: 12, completion: 5, total: 17 },
    });
    assert.ok(cost > 0, JSON.stringify(trace));
    socket.close();
  },

  async 'a socket that names prompts hears of those'() {
    const { socket, of } = await connected({ token: session(ADA) });
    const [one, other] = [await prompted('one'), await prompted('other')];
    assert.deepEqual(await socket.emitWithAck('subscribe', { promptId: one }), { promptIds: [one] });
    for (const wrong of [{ promptId: randomUUID() }, { promptId: 'x' }, {}, 'x', null]) {
      assert.ok((await socket.emitWithAck('subscribe', wrong)).error, JSON.stringify(wrong));
    }
    const [unheard] = await traced(other);
    const [heard] = await traced(one);
    await until('the trace', () => ids(of('trace:complete')).includes(heard));
    assert.deepEqual(ids(of('trace:complete')), [heard]);
    assert.deepEqual(await socket.emitWithAck('unsubscribe', { promptId: one }), { promptIds: [] });
    const [wide] = await traced(other);
    await until('the other', () => ids(of('trace:complete')).includes(wide));
    assert.ok(!ids(of('trace:complete')).includes(unheard));
    const narrow = await connected({ token: session(ADA), promptIds: [one] });
    const [again] = await traced(other);
    await until('the wide one', () => ids(of('trace:complete')).includes(again));
    assert.deepEqual(ids(narrow.of('trace:complete')), []);
    narrow.socket.close();
    socket.close();
  },

  async 'who was away hears what it missed, in order and once'() {
    const prompt = await prompted('missed');
    let lastEventId;
    const auth = (tell) => tell({ token: session(ADA), lastEventId, promptIds: [prompt] });
    const first = await connected(auth);
    const [before] = await traced(prompt);
    lastEventId = (await until('the first', () => first.of('trace:complete')[0])).eventId;
    first.socket.close();
    const missed = [];
    for (let n = 0; n < 5; n++) missed.push(...(await traced(prompt)));
    await sleep(1_500);
    const second = await connected(auth);
    const [after] = await traced(prompt);
    await until('the last', () => ids(second.of('trace:complete')).includes(after));
    const heard = ids(second.of('trace:complete'));
    assert.deepEqual([...heard].sort(), [...missed, after].sort());
    assert.equal(heard.at(-1), after);
    assert.ok(!heard.includes(before));
    assert.deepEqual(second.of('lagged'), []);
    second.socket.close();
    // Longer ago than anything is kept: the client is told to ask for the rows.
    lastEventId = '1-00000000-1';
    const third = await connected(auth);
    await until('lagged', () => third.of('lagged').length > 0);
    third.socket.close();
  },

  async 'a socket ends with its token'() {
    const ended = ({ socket }) => new Promise((done) => socket.on('disconnect', done));
    const short = await connected({ token: session(ADA, { expiresIn: '4s' }) });
    const token = session({ ...ADA, name: 'Ada, once' });
    const logged = await connected({ token });
    const gone = [ended(short), ended(logged)];
    await ok('DELETE', '/api/auth/phoenix', token, undefined, 204);
    await Promise.race([Promise.all(gone), sleep(15_000).then(() => assert.fail('still there'))]);
    assert.deepEqual(short.of('ended').map((one) => one.reason), ['unauthorized']);
    assert.equal(await refused({ token }), 'unauthorized');
  },

  async 'a token that may less hears less'() {
    const jwt = require('jsonwebtoken');
    const { SECRET } = process.env;
    const claims = (permissions) => jwt.sign({ sub: ADA.id, email: ADA.email, role: 'member', permissions }, SECRET, { expiresIn: '1h', issuer: 'sambatv-prompt-library', audience: 'phoenix-service' });
    const only = await connected({ token: claims(['read:evaluations']) });
    const all = await connected({ token: session(ADA) });
    const prompt = await prompted('less');
    await traced(prompt);
    await until('the trace', () => all.of('trace:complete').some((one) => one.promptId === prompt));
    await evaluated(prompt);
    await until('the end', () => only.of('evaluation:update').find((one) => one.status === 'completed'));
    assert.deepEqual(only.of('trace:complete'), []);
    assert.match(await refused({ token: claims([]) }), /nothing/);
    only.socket.close();
    all.socket.close();
  },

  async 'who says too much is cut off, and who says nothing too'() {
    const cut = ({ socket }) => new Promise((done) => socket.on('disconnect', done));
    const loud = await connected({ token: session(ADA) });
    const loudGone = cut(loud);
    for (let n = 0; n < 300; n++) loud.socket.emit('nonsense', n);
    await Promise.race([loudGone, sleep(10_000).then(() => assert.fail('the loud one is still there'))]);
    const large = await connected({ token: session(ADA) });
    const largeGone = cut(large);
    large.socket.emit('subscribe', { promptId: 'x'.repeat(200_000) });
    await Promise.race([largeGone, sleep(10_000).then(() => assert.fail('the large one is still there'))]);

    const address = `${API.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`;
    const raw = () => new Promise((done) => {
      const socket = new WebSocket(address);
      socket.on('open', () => done({ socket, closed: new Promise((gone) => socket.on('close', gone)) }));
      socket.on('unexpected-response', (_, answer) => done({ status: answer.statusCode }));
      socket.on('error', () => {});
    });
    const silent = [];
    for (let n = 0; n < 40; n++) silent.push(await raw());
    const status = silent.filter((one) => one.status).map((one) => one.status);
    assert.ok(status.length >= 5 && status.every((one) => one === 429), `${status}`);
    const began = Date.now();
    await Promise.race([Promise.all(silent.map((one) => one.closed)), sleep(15_000).then(() => assert.fail('the silent are still there'))]);
    assert.ok(Date.now() - began < 15_000);
    // What claims attachments that never come, or is no packet at all.
    for (const packet of ['451000000-["x"]', '42["', '4', 'x', '40/admin,{}', Buffer.alloc(70_000)]) {
      const { socket, closed } = await raw();
      socket.send(packet);
      await Promise.race([closed, sleep(15_000).then(() => assert.fail(`${packet.slice(0, 20)}: still there`))]);
    }
    (await connected({ token: session(ADA) })).socket.close();
  },

  async 'what happens at another emberd is heard here'() {
    if (!OTHER) return;
    const prompt = await prompted('elsewhere');
    const { socket, of } = await connected({ token: session(ADA), promptIds: [prompt] });
    // The other hears within a moment that somebody listens.
    await sleep(1_500);
    const sent = await traced(prompt, { count: 40, otlp: OTHER_OTLP });
    await until('traces', () => ids(of('trace:complete')).length >= sent.length);
    assert.deepEqual([...ids(of('trace:complete'))].sort(), [...sent].sort());
    const evaluation = await evaluated(prompt, OTHER);
    await until('the end', () => of('evaluation:update').find((one) => one.evaluationId === evaluation.id && one.status === 'completed'));
    // And who comes back at the other goes on there.
    const lastEventId = of('trace:complete').at(-1).eventId;
    socket.close();
    const [missed] = await traced(prompt);
    await sleep(1_500);
    const moved = await connected({ token: session(ADA), promptIds: [prompt], lastEventId }, { url: OTHER });
    await until('what was missed', () => ids(moved.of('trace:complete')).includes(missed) || moved.of('lagged').length > 0);
    moved.socket.close();
  },
};

tell(stories);
