// Makes the application's key pairs: DIR/rs256.pem, DIR/es256.pem, and their public halves as DIR/jwks.json.
'use strict';
const { generateKeyPairSync } = require('node:crypto');
const { writeFileSync } = require('node:fs');
const { join } = require('node:path');

const dir = process.argv[2];
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const keys = [];
for (const [alg, pair] of [['RS256', rsa], ['ES256', ec]]) {
  const kid = `${alg.toLowerCase()}-1`;
  writeFileSync(join(dir, `${alg.toLowerCase()}.pem`), pair.privateKey.export({ type: 'pkcs8', format: 'pem' }));
  keys.push({ ...pair.publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' });
}
writeFileSync(join(dir, 'jwks.json'), JSON.stringify({ keys }));
