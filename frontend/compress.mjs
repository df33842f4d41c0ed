// Writes a .gz and a .br beside every built file that gets smaller by it: the API serves them as they are.
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const folder = '../services/api/static';
const best = { params: { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY } };

for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || /\.(gz|br|png|woff2)$/.test(entry.name)) continue;
    const path = join(entry.parentPath, entry.name);
    const plain = readFileSync(path);
    const smaller = { gz: gzipSync(plain, { level: 9 }), br: brotliCompressSync(plain, best) };
    for (const [ending, packed] of Object.entries(smaller)) {
        if (packed.length < plain.length) writeFileSync(`${path}.${ending}`, packed);
    }
}
