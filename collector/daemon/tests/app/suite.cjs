// A prompt library's own kind of client: tokens, rows, GraphQL through a gateway, and Phoenix behind it all.
//
// From the environment: what client.cjs needs, and EMAIL and PASSWORD of a profile.
'use strict';
const assert = require('node:assert/strict');
const { randomUUID } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const jwt = require('jsonwebtoken');
const { person, session, bridge, byKey, ask, ok, tell } = require('./client.cjs');

const { API, SECRET, KEYS, ISSUER, AUDIENCE, EMAIL, PASSWORD } = process.env;
const ADA = person('Ada', 'member', { department: 'Research' });
const BOB = person('Bob');
const EVE = person('Eve', 'admin');

const stories = {
  async 'every kind of token is who it says'() {
    for (const token of [session(ADA), bridge(ADA), byKey(ADA, 'RS256'), byKey(ADA, 'ES256'), session(ADA, { audience: ['other', AUDIENCE] })]) {
      await ok('GET', '/api/prompts', token);
    }
    const made = await ok('POST', '/api/prompts', byKey(ADA, 'ES256'), { title: `of ${ADA.id}`, content: 'Say {{input}}.' }, 201);
    assert.equal(made.created_by, ADA.id);
  },

  async 'what is forged or out of time is nobody'() {
    const publicKey = readFileSync(join(KEYS, 'jwks.json'));
    const claims = { sub: ADA.id, iss: ISSUER, aud: AUDIENCE };
    for (const token of [
      undefined, '', 'x', `${session(ADA)}x`, session(ADA, { expiresIn: '-1m' }), session(ADA, { notBefore: '5m' }),
      session(ADA, { issuer: 'https://evil.example' }), session(ADA, { audience: 'other' }), session(ADA, { expiresIn: '30d' }),
      jwt.sign(claims, 'another secret of thirty-two bytes or more', { expiresIn: '1h' }),
      jwt.sign(claims, SECRET, { expiresIn: '1h', algorithm: 'HS512' }),
      jwt.sign(claims, null, { expiresIn: '1h', algorithm: 'none' }),
      jwt.sign(claims, publicKey, { expiresIn: '1h', keyid: 'rs256-1' }),
      jwt.sign({ sub: ADA.id, email: ADA.email, name: ADA.name }, SECRET, { expiresIn: '1h' }),
      byKey(ADA, 'RS256', { keyid: 'es256-1' }),
    ]) {
      const answer = await ask('GET', '/api/prompts', token);
      assert.deepEqual([answer.status, answer.json], [401, { error: 'a token is needed' }], token);
    }
    const inQuery = await ask('GET', `/api/prompts?token=${session(ADA)}`);
    assert.equal(inQuery.status, 401, 'no token in a query');
  },

  async 'an evaluation from a form to its results'() {
    const token = session(ADA);
    const prompt = await ok('POST', '/api/prompts', token, { title: `faq ${ADA.id}`, content: 'Answer: {{input}}' }, 201);
    const data = [1, 2, 3, 4].map((n) => ({ id: `e${n}`, input: `${n}?`, output: n === 4 ? 'wrong' : `${n}`, reference: `${n}` }));
    const dataset = await ok('POST', '/api/datasets', token, { name: 'mine', type: 'custom', data }, 201);
    const invalid = await ask('POST', '/api/evaluations', token, { promptId: 'x', datasetId: dataset.id, name: '', config: { model: 'recorded', temperature: 3, evaluators: [] } });
    assert.deepEqual([invalid.status, invalid.json.error], [400, 'Validation failed']);
    assert.ok(invalid.json.details.length >= 3, invalid.text);
    const asked = { promptId: prompt.id, datasetId: dataset.id, name: 'nightly', description: 'by a form', config: { model: 'recorded', evaluators: ['exact_match'] } };
    let row = await ok('POST', '/api/evaluations', token, asked, 201);
    assert.equal(row.created_by, ADA.id);
    for (let n = 0; row.status !== 'completed'; n++) {
      assert.ok(n < 600, row.status);
      await new Promise((done) => setTimeout(done, 50));
      row = await ok('GET', `/api/evaluations/${row.id}`, token);
    }
    assert.deepEqual([row.metrics.evaluators.exact_match.mean, row.metrics.evaluators.exact_match.of], [0.75, 4]);
    const results = await ok('GET', `/api/evaluations/${row.id}/results`, token);
    assert.deepEqual(results.data.map((one) => one.score).sort(), [0, 1, 1, 1]);

    // Everyone sees an evaluation, and only its creator or an administrator changes it; a dataset is its creator's.
    await ok('GET', `/api/evaluations/${row.id}`, session(BOB));
    await ok('PATCH', `/api/evaluations/${row.id}`, session(BOB), { name: 'mine now' }, 403);
    await ok('DELETE', `/api/evaluations/${row.id}`, session(BOB), undefined, 403);
    for (const path of ['', '/examples', '/export']) {
      await ok('GET', `/api/datasets/${dataset.id}${path}`, session(BOB), undefined, 404);
    }
    const bobs = await ok('GET', '/api/datasets', session(BOB));
    assert.ok(!JSON.stringify(bobs).includes(dataset.id));
    await ok('PATCH', `/api/evaluations/${row.id}`, session(EVE), { name: 'renamed' });
    await ok('GET', '/api/status', session(BOB), undefined, 403);
    await ok('GET', '/api/status', session(EVE));
  },

  async 'a session becomes a bridge token'() {
    const answer = await ok('POST', '/api/auth/phoenix', session(ADA), {});
    const claims = jwt.verify(answer.token, SECRET, { algorithms: ['HS256'], issuer: 'sambatv-prompt-library', audience: 'phoenix-service' });
    assert.deepEqual([claims.sub, claims.email, claims.name, claims.role], [ADA.id, ADA.email, 'Ada', 'member']);
    assert.deepEqual(claims.permissions, ['read:traces', 'read:evaluations', 'write:own', 'delete:own']);
    assert.equal(claims.metadata.company, 'SambaTV');
    assert.equal(claims.exp - claims.iat, 3600);
    await ok('GET', '/api/prompts', answer.token);
    const { totalTime, databaseTime, cacheHits } = answer.performance;
    assert.ok(totalTime >= 0 && databaseTime >= 0 && cacheHits >= 0);
  },

  async 'a password becomes a bridge token'() {
    const answer = await ok('POST', '/api/auth/phoenix', undefined, { email: EMAIL.toUpperCase(), password: PASSWORD });
    await ok('GET', '/api/prompts', answer.token);
    const wrong = await ask('POST', '/api/auth/phoenix', undefined, { email: EMAIL, password: 'wrong' });
    const unknown = await ask('POST', '/api/auth/phoenix', undefined, { email: 'nobody@example.com', password: PASSWORD });
    assert.deepEqual([wrong.status, wrong.text], [401, unknown.text]);
  },

  async 'a token that was ended is nobody'() {
    const token = session({ ...ADA, name: 'Ada, once' });
    await ok('GET', '/api/prompts', token);
    await ok('DELETE', '/api/auth/phoenix', token, undefined, 204);
    await ok('GET', '/api/prompts', token, undefined, 401);
  },

  async 'a gateway composes prompts with what emberd knows'() {
    const { ApolloServer } = require('@apollo/server');
    const { ApolloGateway, LocalGraphQLDataSource, RemoteGraphQLDataSource } = require('@apollo/gateway');
    const { composeServices } = require('@apollo/composition');
    const { buildSubgraphSchema } = require('@apollo/subgraph');
    const { parse } = require('graphql');
    const token = session(ADA);
    const { data: rows } = await ok('GET', '/api/prompts', token);
    const prompt = rows.find((row) => row.title === `faq ${ADA.id}`);
    const link = 'extend schema @link(url: "https://specs.apollo.dev/federation/v2.0", import: ["@key"])';
    const typeDefs = parse(`${link} type Query { prompts: [Prompt!]! } type Prompt @key(fields: "id") { id: ID! title: String! }`);
    const library = buildSubgraphSchema({ typeDefs, resolvers: {
      Query: { prompts: () => [{ id: prompt.id, title: prompt.title }] },
      Prompt: { __resolveReference: ({ id }) => ({ id, title: `prompt ${id}` }) },
    } });
    const { data: service } = await ok('POST', '/graphql', token, { query: '{ _service { sdl } }' });
    const composed = composeServices([
      { name: 'library', url: 'http://library', typeDefs },
      { name: 'emberd', url: `${API}/graphql`, typeDefs: parse(service._service.sdl) },
    ]);
    assert.deepEqual(composed.errors ?? [], []);
    class Emberd extends RemoteGraphQLDataSource {
      willSendRequest({ request }) { request.http.headers.set('authorization', `Bearer ${token}`); }
    }
    const gateway = new ApolloGateway({
      supergraphSdl: composed.supergraphSdl,
      buildService: ({ name, url }) => (name === 'library' ? new LocalGraphQLDataSource(library) : new Emberd({ url })),
    });
    const server = new ApolloServer({ gateway });
    await server.start();
    const query = '{ prompts { id title evaluations(first: 5) { name status metrics } traces { id } performance(window: DAY) { value } } evaluations { name prompt { title } } }';
    const { body } = await server.executeOperation({ query });
    await server.stop();
    const { data, errors } = body.singleResult;
    assert.deepEqual(errors ?? [], []);
    assert.equal(data.prompts[0].title, prompt.title);
    assert.equal(data.prompts[0].evaluations[0].status, 'completed');
    assert.ok(data.evaluations.length >= 1);
  },

  async 'Phoenix is behind its own paths'() {
    const path = '/api/phoenix/v1/projects?limit=7';
    const first = await ask('GET', path, session(ADA));
    assert.equal(first.status, 200, first.text);
    assert.ok(Array.isArray(first.json.data) && first.json.data.length >= 1, first.text);
    const again = await ask('GET', path, session(BOB));
    assert.deepEqual([again.text, again.headers.get('x-emberd-cache')], [first.text, 'hit']);
    const name = `made-${randomUUID()}`;
    await ok('POST', '/api/phoenix/v1/projects', session(ADA), { name }, 403);
    const made = await ask('POST', '/api/phoenix/v1/projects', session(EVE), { name });
    assert.ok(made.status === 200 || made.status === 201, made.text);
    const after = await ask('GET', path, session(ADA));
    assert.ok(after.text.includes(name), 'a write lets no old answer stand');
    for (const [method, closed] of [['GET', 'v1/users'], ['POST', 'v1/system/api_keys'], ['POST', 'auth/login'], ['GET', 'v1/user/api_keys']]) {
      await ok(method, `/api/phoenix/${closed}`, session(EVE), method === 'POST' ? {} : undefined, 403);
    }
    await ok('GET', '/api/phoenix/v1%2f..%2fusers', session(EVE), undefined, 400);
    const annotation = { data: [{ span_id: '0102030405060708', name: 'x', annotator_kind: 'CODE', result: { score: 1 } }] };
    const told = await ask('POST', '/api/phoenix/v1/span_annotations?sync=false', session(ADA), annotation);
    assert.ok(told.status < 300, told.text);
    await ok('GET', '/api/phoenix/v1/nowhere', session(ADA), undefined, 404);
    const health = await ok('GET', '/api/phoenix/health', session(ADA));
    assert.deepEqual([health.database.healthy, health.phoenix.healthy], [true, true]);
    assert.ok(health.cache.metrics.phoenix.hits >= 1);
    if (process.env.REDIS) assert.equal(health.cache.stats.redis.state, 'up', JSON.stringify(health.cache.stats));
    const stats = await ok('GET', '/api/phoenix/stats', session(ADA));
    assert.ok(stats.prompts >= 1 && Array.isArray(stats.data));
  },
};

tell(stories);
