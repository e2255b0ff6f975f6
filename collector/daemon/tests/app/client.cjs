// What a prompt library's own kind of client is made of: tokens by jsonwebtoken, requests by fetch.
//
// From the environment: API, SECRET, KEYS (where the key pairs are), ISSUER, AUDIENCE.
'use strict';
const assert = require('node:assert/strict');
const { randomUUID } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const jwt = require('jsonwebtoken');

const { API, SECRET, KEYS, ISSUER, AUDIENCE } = process.env;
// Somebody new each time.
const person = (name, role = 'member', more = {}) => ({ id: randomUUID(), email: `${name.toLowerCase()}-${randomUUID()}@example.com`, name, role, ...more });

const session = (user, options = {}) =>
  jwt.sign({ email: user.email, name: user.name, role: user.role }, SECRET, {
    subject: user.id, issuer: ISSUER, audience: AUDIENCE, expiresIn: '1h', ...options,
  });

// As an application signs it for itself.
const bridge = (user) =>
  jwt.sign(
    {
      sub: user.id, email: user.email, name: user.name, role: user.role, provider: 'sambatv',
      permissions: ['read:traces', 'read:evaluations', ...(user.role === 'admin' ? ['write:all', 'delete:all', 'admin:all'] : ['write:own', 'delete:own'])],
      metadata: { company: 'SambaTV', department: user.department },
    },
    SECRET,
    { expiresIn: '1h', issuer: 'sambatv-prompt-library', audience: 'phoenix-service' },
  );

const byKey = (user, alg, options = {}) =>
  jwt.sign({ email: user.email, role: user.role }, readFileSync(join(KEYS, `${alg.toLowerCase()}.pem`)), {
    algorithm: alg, keyid: `${alg.toLowerCase()}-1`, subject: user.id, issuer: ISSUER, audience: AUDIENCE, expiresIn: '1h', ...options,
  });

async function ask(method, path, token, body) {
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(body !== undefined && { 'content-type': 'application/json' }) };
  const answer = await fetch(path.startsWith('http') ? path : API + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  let json = null;
  try { json = JSON.parse(text); } catch { /* not JSON */ }
  return { status: answer.status, headers: answer.headers, text, json };
}

async function ok(method, path, token, body, status = 200) {
  const answer = await ask(method, path, token, body);
  assert.equal(answer.status, status, `${method} ${path}: ${answer.status} ${answer.text}`);
  return answer.json;
}

// Tells the stories one by one, and ends with an error at the first that is not true.
async function tell(stories) {
  for (const [name, story] of Object.entries(stories)) {
    await story().catch((error) => {
      error.message = `${name}: ${error.message}`;
      console.error(error.stack);
      process.exit(1);
    });
    console.log(`ok: ${name}`);
  }
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

module.exports = { person, session, bridge, byKey, ask, ok, tell, sleep };
