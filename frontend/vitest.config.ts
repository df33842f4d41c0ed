import { defineConfig, mergeConfig } from 'vitest/config';
import build from './vite.config.ts';

// Apart from the build's own, so that the build needs no test runner.
export default mergeConfig(build, defineConfig({ test: { include: ['tests/**/*.test.ts'] } }));
