/** The lockspace of every simulated cluster. */
import { geometryOf } from "../../lib/format/geometry.js";

export const GEOMETRY = geometryOf(512);
export const SPACE = "sim";
