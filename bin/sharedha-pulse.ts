#!/usr/bin/env node
import { runPulse } from "../lib/pulse/main.js";
await runPulse(process.argv.slice(2));
