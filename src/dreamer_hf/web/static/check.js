// Runs where modules do not, in order to say why the page stays empty.

(function () {
  var message = document.getElementById("message");
  if (location.protocol === "file:") {
    message.textContent = "A browser does not run this page from a file: serve its folder, for example with `python -m http.server`.";
  } else if (!("noModule" in HTMLScriptElement.prototype)) {
    message.textContent = "This browser is too old for this page: use a current Chrome, Edge, Firefox or Safari.";
  }
})();
