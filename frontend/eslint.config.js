import svelte from 'eslint-plugin-svelte';
import ts from 'typescript-eslint';
import svelteConfig from './svelte.config.js';

const parser = { parserOptions: { parser: ts.parser, extraFileExtensions: ['.svelte'], svelteConfig } };

export default ts.config(
  { ignores: ['node_modules/', 'src/lib/live-message.ts'] },
  ...ts.configs.strict,
  ...svelte.configs.recommended,
  { files: ['**/*.svelte', '**/*.svelte.ts'], languageOptions: parser },
  {
    rules: {
      // Names of pods and labels are data, never markup.
      'svelte/no-at-html-tags': 'error',
      'svelte/require-each-key': 'error',
      // What is read again and again is replaced as a whole.
      'svelte/prefer-svelte-reactivity': 'off',
      'max-lines': ['error', 400],
      'max-lines-per-function': ['error', { max: 60, skipComments: true }],
    },
  },
  { files: ['**/*.svelte', 'tests/**'], rules: { 'max-lines-per-function': 'off' } },
);
