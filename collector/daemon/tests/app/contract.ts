// A client whose types were made of GET /openapi.json: what it asks and reads is checked by the compiler, and then it runs.
//
// From the environment: API. `contract.d.ts` beside it is made by openapi-typescript.
import assert from 'node:assert/strict';
import createClient from 'openapi-fetch';
import type { components, paths } from './contract';

type Dataset = components['schemas']['Dataset'];
type NewEvaluation = components['schemas']['NewEvaluation'];

const baseUrl = process.env.API;
assert(baseUrl);
const client = createClient<paths>({ baseUrl });

/** What was answered; an end of the story where it was refused. */
function given<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  assert(answer.data !== undefined, `${answer.response.status} ${JSON.stringify(answer.error)}`);
  return answer.data;
}

async function dataset(name: string): Promise<Dataset> {
  const data = [
    { id: 'fr', input: 'Capital of France?', output: 'Paris', reference: 'Paris' },
    { id: 'it', input: 'Capital of Italy?', output: 'Milan', reference: 'Rome' },
  ];
  return given(await client.POST('/api/datasets', { body: { name, type: 'custom', data } }));
}

/** Every dataset there is, by pages of two. */
async function datasets(): Promise<Dataset[]> {
  const all: Dataset[] = [];
  let cursor: string | undefined;
  do {
    const page = given(await client.GET('/api/datasets', { params: { query: { limit: 2, cursor } } }));
    assert(page.data.length <= 2);
    all.push(...page.data);
    cursor = page.next_cursor ?? undefined;
  } while (cursor !== undefined);
  return all;
}

async function ended(id: string) {
  for (;;) {
    const row = given(await client.GET('/api/evaluations/{id}', { params: { path: { id } } }));
    if (row.status !== 'pending' && row.status !== 'running') return row;
    await new Promise((go) => setTimeout(go, 50));
  }
}

async function story(): Promise<void> {
  const prompt = given(await client.POST('/api/prompts', { body: { title: 'geography', content: 'Answer: {{input}}' } }));
  const made: Dataset[] = [];
  for (const name of ['one', 'two', 'three', 'four', 'five']) made.push(await dataset(name));
  const [first] = made;
  assert(first);
  assert.equal(first.examples, 2);
  assert.deepEqual((await datasets()).map((one) => one.id).sort(), made.map((one) => one.id).sort());
  console.log('lists are paged');

  const body: NewEvaluation = {
    promptId: prompt.id, datasetId: first.id, name: 'typed', config: { evaluators: ['exact_match', { name: 'contains', config: { words: ['a'] } }] },
  };
  const params = { header: { 'Idempotency-Key': 'typed-1' } };
  const evaluation = given(await client.POST('/api/evaluations', { params, body }));
  const again = given(await client.POST('/api/evaluations', { params, body }));
  assert.equal(again.id, evaluation.id);
  const row = await ended(evaluation.id);
  assert.equal(row.status, 'completed');
  assert.equal(row.progress?.total, 4);
  const results = given(await client.GET('/api/evaluations/{id}/results', {
    params: { path: { id: evaluation.id }, query: { evaluator: 'exact_match' } },
  }));
  assert.deepEqual(results.data.map((one) => one.score).sort(), [0, 1]);
  console.log('an evaluation is made once, and runs');

  const wrong = await client.POST('/api/evaluations', { body: { ...body, name: '', config: { evaluators: ['no_such'] } } });
  assert.equal(wrong.response.status, 400);
  assert(wrong.error);
  assert.equal(wrong.error.error, 'Validation failed');
  assert(wrong.error.details?.some((detail) => detail.path === 'name' && detail.message.length > 0));
  const missing = await client.GET('/api/datasets/{id}', { params: { path: { id: prompt.id } } });
  assert.equal(missing.response.status, 404);
  assert.equal(missing.error?.error, 'no such dataset');
  console.log('what is wrong is told');
}

story().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
