// Looks at the session while it loads, so that it cannot be loaded before there is one.
const { colour } = require('early');

module.exports = [process.env.MUXSIM_SEED, process.argv.slice(2), colour];
