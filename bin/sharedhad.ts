#!/usr/bin/env node
import { runDaemon } from "../lib/daemon/main.js";
await runDaemon(process.argv.slice(2));
