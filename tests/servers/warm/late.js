// Looks at the session while it loads, so that it cannot be loaded before there is one.
import { colour } from 'early';

export default [process.env.MUXSIM_SEED, process.argv.slice(2), colour];
