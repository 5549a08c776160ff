// The start of the page. A page of a server plays there; a page that was exported with a world plays it in this browser.

import { Game } from "./game.js";

const isExported = document.querySelector('meta[name="dreamer-site"]') !== null;
const { connect } = await import(isExported ? "./local_connection.js" : "./server_connection.js");
new Game(connect);
