#!/usr/bin/env node
import { runGuard } from "../lib/guard/main.js";
await runGuard(process.argv.slice(2));
