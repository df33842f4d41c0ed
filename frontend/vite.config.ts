import { env } from 'node:process';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// `npm run dev` shows a running podloxx (podloxx-launch demo --no-browser) with this source.
const api = `http://127.0.0.1:${env.PODLOXX_PORT ?? '1337'}`;

export default defineConfig({
  plugins: [svelte()],
  // Relative, so that the page also works below a path of a proxy's.
  base: './',
  build: {
    outDir: '../services/api/static',
    emptyOutDir: true,
    target: 'es2023',
    // The page's content security policy allows no data: address for scripts and styles.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: {
      '/traffic': { target: api, ws: true },
      '/readyz': api,
      '/metrics': api,
      '/openapi.json': api,
    },
  },
});
