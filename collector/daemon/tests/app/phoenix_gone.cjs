// Phoenix was killed a moment ago: what needs it says so at once, and nothing else is moved.
//
// From the environment: what client.cjs needs. suite.cjs has run before, and what it read last is kept.
'use strict';
const assert = require('node:assert/strict');
const { person, session, ask, ok, tell } = require('./client.cjs');

const ADA = person('Ada');
const EVE = person('Eve', 'admin');

async function timed(...request) {
  const began = performance.now();
  const answer = await ask(...request);
  return { ...answer, ms: performance.now() - began };
}

const stories = {
  async 'what was read before is given as it was'() {
    const answer = await timed('GET', '/api/phoenix/v1/projects?limit=7', session(ADA));
    assert.equal(answer.status, 200, answer.text);
    assert.ok(['hit', 'stale'].includes(answer.headers.get('x-emberd-cache')), answer.headers.get('x-emberd-cache'));
    assert.ok(Array.isArray(answer.json.data));
  },

  async 'what was not, is 503 within a second'() {
    for (let nr = 11; nr < 31; nr++) {
      for (const [method, body] of [['GET'], ['POST', { name: `new-${nr}` }]]) {
        const answer = await timed(method, `/api/phoenix/v1/projects${method === 'GET' ? `?limit=${nr}` : ''}`, session(EVE), body);
        assert.equal(answer.status, 503, answer.text);
        assert.ok(answer.json.retryAfter >= 1 && answer.headers.get('retry-after'), answer.text);
        assert.ok(answer.ms < 1_000, `${method} took ${answer.ms} ms`);
      }
    }
  },

  async 'what is emberd\'s own goes on'() {
    const token = session(ADA);
    const prompt = await ok('POST', '/api/prompts', token, { title: `after ${ADA.id}`, content: 'Hi.' }, 201);
    for (const path of ['/api/prompts', `/api/prompts/${prompt.id}/traces`, '/api/evaluations', '/api/phoenix/stats']) {
      const answer = await timed('GET', path, token);
      assert.equal(answer.status, 200, answer.text);
    }
    const health = await ok('GET', '/api/phoenix/health', token);
    assert.deepEqual([health.database.healthy, health.phoenix.healthy], [true, false]);
  },
};

tell(stories);
